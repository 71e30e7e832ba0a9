"""Which kernels of a model have tuned tiles, and where those are found.

`tuning_logs/<target>/` has one database for each target; `shadowattn tune` writes them. A target is
matched as a whole: another CPU, or the same with other instructions, keeps the hand-chosen tiles.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import tvm

from tir_kernels.constants import PAGE_SIZE_TOKENS
from tir_kernels.features import CpuFeatures, TunedTile
from tir_kernels.spec import LinearSpec
from tir_kernels.tuning.space import sizes_of
from tir_kernels.tuning.workloads import GemmWorkload, ListWorkload, Tile, Workload

from ..config.architecture import LlamaConfig
from ..config.chat_config import Quantization, model_dtype
from ..config.paths import tuning_logs_dir
from ..errors import ConfigError
from ..plan import Plan
from .tuning_database import TuningDatabase, read_database

SHIPPED, OFF = "shipped", "off"
"""What may stand for a folder: the one we ship, and none."""

MIN_GAIN = 0.05
"""What a tile must gain on the hand-chosen one, as a part of its time, to replace it. The shortest
times of the same tile in two runs differ by up to 4 % on a computer that does other things too."""

_GEMM_TOKENS = 256
"""A prefill chunk."""

_LIST_KEYS, _LIST_RATIO, _LISTS = 128 * PAGE_SIZE_TOKENS, 0.2, 8
"""A context of 2,048 tokens, of which a fifth is kept; so many lists that the keys of one aren't
all that the caches hold."""


@dataclass(frozen=True)
class TunedKernels:
    """What a database says about the kernels of a model.

    Attributes
    ----------
    source : the folder of the target's database; None if there is none, or it isn't to be used.
    kernels : names of those that were tuned for this target.
    tiles : what replaces hand-chosen tiles; kernels whose hand-chosen tile won have none.
    """

    source: Path | None = None
    kernels: tuple[str, ...] = ()
    tiles: tuple[TunedTile, ...] = ()

    def describe(self) -> str:
        """One line for people."""
        if self.source is None:
            return "tuned: no kernels, all tiles are hand-chosen"
        count = f"{len(self.kernels)} kernel{'' if len(self.kernels) == 1 else 's'}"
        kept = len(self.kernels) - len(self.tiles)
        chosen = f", {kept} with the hand-chosen tile" if kept else ""
        return f"tuned: {count} from {self.source}{chosen}"


def target_folder(target: tvm.target.Target) -> str:
    """What the target's folder is called: architecture and CPU, as x86_64-znver3."""
    architecture = str(target.attrs.get("mtriple", "")).partition("-")[0]
    name = f"{architecture or 'any'}-{target.attrs.get('mcpu', '') or 'generic'}"
    return re.sub(r"[^A-Za-z0-9._-]", "_", name)


def model_workloads(
    architecture: LlamaConfig, quantization: Quantization, plan: Plan | None
) -> tuple[Workload, ...]:
    """What is worth tuning in a model, each once: the GEMMs of a layer and, where the plan's
    queries share lists, the attention to them. What decoding does is bound by memory. (GEMMs of
    float16 weights have their hand-chosen tiles: what is searched is float32.)"""
    dims, hidden = architecture.head_dim, architecture.hidden_size
    queries = architecture.num_attention_heads * dims
    keys_and_values = 2 * architecture.num_key_value_heads * dims
    shapes = (
        (queries + keys_and_values, hidden),
        (hidden, queries),
        (2 * architecture.intermediate_size, hidden),
        (hidden, architecture.intermediate_size),
    )
    workloads: list[Workload] = [
        GemmWorkload(LinearSpec(outputs, inputs, quantization), _GEMM_TOKENS)
        for outputs, inputs in dict.fromkeys(shapes)
        if model_dtype(quantization) == "float32"
    ]
    if plan is not None and plan.sharing.pooled:
        group = architecture.num_attention_heads // architecture.num_key_value_heads
        workloads.append(
            ListWorkload(
                head_dim=dims,
                heads=group if plan.sharing.gqa_group else 1,
                block_queries=plan.sharing.query_block,
                keys=_LIST_KEYS,
                kept=round(_LIST_KEYS * _LIST_RATIO),
                lists=_LISTS,
            )
        )
    return tuple(workloads)


def tuned_kernels(
    workloads: Sequence[Workload],
    target: tvm.target.Target,
    features: CpuFeatures,
    tuning_logs: str = SHIPPED,
) -> TunedKernels:
    """The tuned tiles of the workloads in `tuning_logs`: a folder with one for each target,
    `shipped`, or `off`.

    Raises `ConfigError` if the folder is missing or its database for this target is malformed.
    """
    if tuning_logs == OFF:
        return TunedKernels()
    logs = tuning_logs_dir() if tuning_logs == SHIPPED else Path(tuning_logs)
    if tuning_logs != SHIPPED and not logs.is_dir():
        raise ConfigError(
            f"--tuning-logs: expected a folder that `shadowattn tune -o` wrote to, {SHIPPED!r} or "
            f"{OFF!r}, got {tuning_logs!r}"
        )
    source = logs / target_folder(target)
    database = read_database(source)
    if database is None:
        return TunedKernels()
    best = {
        workload: tile
        for workload in workloads
        if (tile := best_tile(database, workload, target, features)) is not None
    }
    if not best:
        return TunedKernels()
    return TunedKernels(
        source,
        tuple(workload.name for workload in best),
        tuple(
            TunedTile(workload.name, tuple(sizes_of(workload, tile).items()))
            for workload, tile in best.items()
            if tile != _hand_chosen(workload, features)
        ),
    )


def best_tile(
    database: TuningDatabase, workload: Workload, target: tvm.target.Target, features: CpuFeatures
) -> Tile | None:
    """The fastest tile, or the hand-chosen one unless another beats it by `MIN_GAIN`; None if the
    workload wasn't measured on this target. Raises `ConfigError`."""
    times = database.times_s(workload, target, features)
    if not times:
        return None
    fastest = min(times, key=lambda tile: times[tile])
    hand = _hand_chosen(workload, features)
    if hand in times and times[fastest] > (1.0 - MIN_GAIN) * times[hand]:
        return hand
    return fastest


def _hand_chosen(workload: Workload, features: CpuFeatures) -> Tile:
    return workload.tile(replace(features, tuned=()))
