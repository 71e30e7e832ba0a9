"""The generation loop: a prompt's token ids in, a stream of timed tokens out."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Literal

from ..errors import ConfigError, ContextOverflowError
from .detokenize import StreamingDetokenizer
from .pairs import PairCounts
from .protocol import TextTokenizer, TokenModel
from .sampling import Logits, Sampler, SamplingParams
from .stop import StopConditions, StopStringFilter

MS_PER_S = 1e3

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True)
class Prefill:
    """What it took to read the prompt.

    Attributes
    ----------
    reused_tokens : leading tokens of the prompt that were in the cache already.
    new_tokens : the others: they were computed.
    duration_ms : time from the call to the first logits.
    pairs : what the prefill computed exactly, see `pairs`.
    """

    reused_tokens: int
    new_tokens: int
    duration_ms: float
    pairs: PairCounts


@dataclass(frozen=True)
class TokenEvent:
    """One sampled token.

    Attributes
    ----------
    token_id : the token; the one that ended the answer is reported too.
    index : 0 for the answer's first token.
    text : text that became complete with this token, often empty; whole characters only. The
        texts of all events concatenate to the answer.
    elapsed_ms : time from the call to this token, sampling and detokenizing included.
    prefill : the same in every event of an answer.
    finish_reason : None but in the last event: "stop" (a stop token or string), "length"
        (max_tokens, or the context window is full).
    """

    token_id: int
    index: int
    text: str
    elapsed_ms: float
    prefill: Prefill
    finish_reason: FinishReason | None


def generate(
    model: TokenModel,
    tokenizer: TextTokenizer,
    prompt_ids: Sequence[int],
    sampling: SamplingParams,
    stop: StopConditions,
    clock_s: Callable[[], float] = time.perf_counter,
) -> Iterator[TokenEvent]:
    """Answer a prompt, token by token.

    The cache is left with the prompt and the sampled tokens but the last. What it held before is
    reused as far as it equals the beginning of the prompt, and dropped from there on, so the
    result is that of reading the whole prompt afresh. (With a sparse plan the chunks then begin
    elsewhere than in a fresh prefill, and what counts as past begins with them.)

    Raises, at the first event and with the cache untouched: `ContextOverflowError` for a prompt
    longer than the context window, `ConfigError` for an empty one. If the caller stops early, or
    `KeyboardInterrupt` strikes, the model stays usable.
    """
    started_s = clock_s()

    def elapsed_ms() -> float:
        return (clock_s() - started_s) * MS_PER_S

    pairs_before = model.prefill_pairs
    logits, reused_tokens = read_prompt(model, prompt_ids)
    prefill = Prefill(
        reused_tokens=reused_tokens,
        new_tokens=len(prompt_ids) - reused_tokens,
        duration_ms=elapsed_ms(),
        pairs=model.prefill_pairs - pairs_before,
    )
    sampler = Sampler(sampling)
    detokenizer = StreamingDetokenizer(tokenizer.decode)
    visible = StopStringFilter(stop.strings)
    for index in count():
        token_id = sampler.sample(logits)
        finish_reason: FinishReason | None = None
        text = ""
        if token_id in stop.token_ids:
            finish_reason = "stop"
        else:
            text = visible.push(detokenizer.push(token_id))
            if visible.found:
                finish_reason = "stop"
            elif index + 1 == stop.max_tokens or model.position == model.context_window_tokens:
                finish_reason = "length"
        if finish_reason and not visible.found:
            text += visible.push(detokenizer.flush())
            text += visible.flush()
        yield TokenEvent(token_id, index, text, elapsed_ms(), prefill, finish_reason)
        if finish_reason:
            return
        logits = model.decode(token_id)


def read_prompt(model: TokenModel, prompt_ids: Sequence[int]) -> tuple[Logits, int]:
    """Bring the cache to hold exactly the prompt; the logits after it, and the tokens reused.

    The last token is always computed: its logits are not in the cache. Raises like `generate`.
    """
    if not prompt_ids:
        raise ConfigError("expected a prompt of at least one token, got an empty one")
    if len(prompt_ids) > model.context_window_tokens:
        raise ContextOverflowError(
            f"the prompt has {len(prompt_ids)} tokens, the context window holds "
            f"{model.context_window_tokens}; shorten the prompt, start a new conversation, or "
            "compile a library with a larger context_window_size"
        )
    reused = min(common_prefix_tokens(model.tokens, prompt_ids), len(prompt_ids) - 1)
    model.rollback(model.position - reused)
    return model.prefill(prompt_ids[reused:]), reused


def common_prefix_tokens(cached: Sequence[int], prompt: Sequence[int]) -> int:
    """How many leading tokens the two have in common."""
    pairs = zip(cached, prompt, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(cached), len(prompt)))
