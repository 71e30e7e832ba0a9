"""`bench prefill` and `bench decode`: whole models, contender by contender."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

from tir_kernels.features import cpu_features
from tir_kernels.spec import ShadowSpec

from ..compiler import resolve_target
from ..compiler.kernel_parameters import shadow_spec
from ..config.chat_config import model_dtype
from ..contenders import ContenderProcess, running
from ..evaluate.budget import prefill_budget
from ..plan import Plan
from ..weights import ModelDirectory
from .model_contenders import ModelContender
from .model_document import DecodeRow, ModelContenderName, PrefillRow
from .model_runs import Processes, Timed, checked_turn, timed_rounds
from .timing import quartile_distance
from .workspace import kv_cache_bytes, pilot_workspace_bytes

_MS_PER_S = 1e3
_TOKENS_A_CONTENDER = 6144
_MAX_ROUNDS = 5
"""Every contender reads about so many tokens at a length, in at most so many rounds: more rounds of
what is short and noisy, one of what takes a minute."""

Progress = Callable[[str, int, int], None]
TokenIds = Sequence[int]


@dataclass(frozen=True)
class ModelGrid:
    """What is timed.

    Attributes
    ----------
    directory, plan : the model, and what `shadow` was compiled with.
    plan_name : in the rows.
    contenders : from `model_contenders`; the dense library is one of them.
    threads : of every contender.
    chunk_tokens : of the compiled libraries' prefill.
    rounds : of every length; None = as many as it takes.
    """

    directory: ModelDirectory
    plan: Plan
    plan_name: str
    contenders: Sequence[ModelContender]
    threads: int
    chunk_tokens: int
    rounds: int | None = None

    @property
    def free(self) -> list[ModelContenderName]:
        """Those that aren't held to the dense library's answers."""
        return [each.name for each in self.contenders if not each.held_to_dense]

    @property
    def spec(self) -> ShadowSpec:
        """The plan's parameters."""
        directory = self.directory
        dtype = model_dtype(directory.quantization)
        return shadow_spec(self.plan, directory.architecture, dtype)


def prefill_rounds(num_tokens: int) -> int:
    """How often a prompt of this length is read, unless the user says."""
    return min(max(_TOKENS_A_CONTENDER // num_tokens, 1), _MAX_ROUNDS)


def bench_prefill(
    grid: ModelGrid,
    prompts: Sequence[TokenIds],
    *,
    progress: Progress = lambda what, done, total: None,
) -> Iterator[list[PrefillRow]]:
    """The rows of one prompt after the other; processes are fresh for each, and their KV caches as
    large as it.

    Before the clock counts, everybody reads the prompt's first two chunks, and the answers are
    checked; those that are timed are checked too. Raises `WrongResultError` or `ConfigError` for a
    contender that computes something else, and like `running`.
    """
    for prompt in prompts:
        opening = prompt[: 2 * grid.chunk_tokens]
        with _started(grid, len(prompt)) as processes:
            checked_turn(
                processes,
                partial(ContenderProcess.prefill, token_ids=opening),
                free=grid.free,
            )
            timed = timed_rounds(
                processes,
                partial(ContenderProcess.prefill, token_ids=prompt),
                rounds=grid.rounds or prefill_rounds(len(prompt)),
                on_round=partial(progress, f"{len(prompt):,} tokens"),
                free=grid.free,
            )
        yield [
            PrefillRow(
                prompt_tokens=len(prompt),
                ttft_ms=statistics.median(timed[contender.name].times_ms),
                spread_ms=_spread(timed[contender.name].times_ms),
                **_compiled_only(grid, contender, len(prompt)),
                **_common(grid, contender, timed, len(prompt)),
            )
            for contender in grid.contenders
        ]


def bench_decode(
    grid: ModelGrid,
    texts: Sequence[tuple[TokenIds, TokenIds]],
    *,
    progress: Progress = lambda what, done, total: None,
) -> Iterator[list[DecodeRow]]:
    """The rows of one prompt, and the tokens that follow it, after the other. Everybody reads the
    prompt once, untimed, and is led along the same tokens, so that all do the same work; once
    before the clock counts. Raises like `bench_prefill`.
    """
    for prompt, tokens in texts:
        with _started(grid, len(prompt) + len(tokens)) as processes:
            checked = partial(checked_turn, processes, free=grid.free)
            checked(partial(ContenderProcess.prefill, token_ids=prompt))
            checked(partial(ContenderProcess.decode, token_ids=tokens))
            timed = timed_rounds(
                processes,
                partial(ContenderProcess.decode, token_ids=tokens),
                rounds=grid.rounds or _MAX_ROUNDS,
                on_round=partial(progress, f"after {len(prompt):,} tokens"),
                free=grid.free,
            )
        rates = {
            name: [_MS_PER_S * len(tokens) / time_ms for time_ms in each.times_ms]
            for name, each in timed.items()
        }
        yield [
            DecodeRow(
                context=len(prompt),
                tokens=len(tokens),
                tokens_per_second=statistics.median(rates[contender.name]),
                spread=_spread(rates[contender.name]),
                **_common(grid, contender, timed, len(prompt)),
            )
            for contender in grid.contenders
        ]


@contextmanager
def _started(grid: ModelGrid, context_tokens: int) -> Iterator[Processes]:
    settings = {
        contender.name: contender.settings(
            grid.directory,
            threads=grid.threads,
            context_tokens=context_tokens,
            chunk_tokens=grid.chunk_tokens,
        )
        for contender in grid.contenders
    }
    with running(settings) as processes:
        yield processes


def _common(
    grid: ModelGrid, contender: ModelContender, timed: dict[Any, Timed], prompt_tokens: int
) -> dict[str, Any]:
    """The fields of a `ModelRow`."""
    sparse = contender.name == "shadow"
    budget = prefill_budget(grid.spec, prompt_tokens, grid.chunk_tokens)
    one = timed[contender.name]
    return {
        "contender": contender.name,
        "weights": contender.weights,
        "threads": grid.threads,
        "plan": grid.plan_name if sparse else None,
        "past_fraction": budget.past_fraction if sparse else 1.0,
        "rounds": len(one.times_ms),
        "checked": "torch" in timed if contender.name == "dense" else contender.held_to_dense,
        "agreement": one.agreement,
        "loaded_memory_bytes": one.loaded_memory_bytes,
        "peak_memory_bytes": one.peak_memory_bytes,
    }


def _compiled_only(grid: ModelGrid, contender: ModelContender, num_tokens: int) -> dict[str, Any]:
    """The fields of a `PrefillRow` that only compiled libraries have."""
    if contender.kind != "compiled":
        return {"prefill_chunk": None, "kv_cache_bytes": None, "pilot_workspace_bytes": None}
    spec = grid.spec
    last_chunk = (num_tokens - 1) % grid.chunk_tokens + 1
    workspace_bytes = pilot_workspace_bytes(
        spec,
        cpu_features(resolve_target("host")),
        num_past=num_tokens - last_chunk,
        num_queries=last_chunk,
        threads=grid.threads,
    )
    return {
        "prefill_chunk": grid.chunk_tokens,
        "kv_cache_bytes": kv_cache_bytes(spec.attention, spec.num_layers, num_tokens),
        "pilot_workspace_bytes": workspace_bytes if contender.name == "shadow" else None,
    }


def _spread(values: Sequence[float]) -> float | None:
    return quartile_distance(values) if len(values) > 1 else None
