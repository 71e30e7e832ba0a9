"""What an answer took: figures with their units, and the record written by `--json`.

The file holds one JSON object: for a single prompt a `GenerationRecord`; for a chat
`{"turns": [GenerationRecord, ...]}`, one per answer, interrupted ones included.
"""

from __future__ import annotations

import resource
import sys
from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from ..config.json_layout import write_document
from .generate import MS_PER_S, TokenEvent

_KIB = 1024
_MAXRSS_UNIT_BYTES = 1 if sys.platform == "darwin" else _KIB  # getrusage(2)
_LINUX_STATUS = Path("/proc/self/status")


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class GenerationStats(_Document):
    """Figures of one answer.

    Attributes
    ----------
    ttft_ms : time to first token: from the prompt's tokens to the first sampled token.
    prefill_tokens_per_s : prompt tokens computed (not those reused from the cache) per second of
        prefill.
    decode_tokens_per_s : tokens after the first, per second after the first; None for one token.
    kept_fraction : part of all (query, older key outside its chunk) pairs of the prefill computed
        exactly, over all layers and heads; 1.0 for a dense library.
    total_kept_fraction : the same over all causal pairs.
    reused_tokens : prompt tokens that were in the cache already.
    peak_memory_bytes : the largest resident set of the process so far.
    """

    ttft_ms: float
    prefill_tokens_per_s: float
    decode_tokens_per_s: float | None
    kept_fraction: float
    total_kept_fraction: float
    reused_tokens: int
    peak_memory_bytes: int


class GenerationRecord(_Document):
    """One answer and what it took.

    Attributes
    ----------
    prompt_token_ids : the whole prompt, template and earlier turns included.
    output_token_ids : every sampled token, the one that ended the answer included.
    text : the answer.
    finish_reason : "stop", "length", or "interrupted" (Ctrl-C).
    """

    prompt_token_ids: tuple[int, ...]
    output_token_ids: tuple[int, ...]
    text: str
    finish_reason: str
    stats: GenerationStats


class ChatRecord(_Document):
    """The answers of one chat, in order."""

    turns: tuple[GenerationRecord, ...]


def make_record(prompt_ids: Sequence[int], events: Sequence[TokenEvent]) -> GenerationRecord:
    """The record of an answer from its events (at least one)."""
    assert events, "an answer has at least one token"
    first, last = events[0], events[-1]
    decode_ms = last.elapsed_ms - first.elapsed_ms
    prefill = first.prefill
    return GenerationRecord(
        prompt_token_ids=tuple(prompt_ids),
        output_token_ids=tuple(event.token_id for event in events),
        text="".join(event.text for event in events),
        finish_reason=last.finish_reason or "interrupted",
        stats=GenerationStats(
            ttft_ms=first.elapsed_ms,
            prefill_tokens_per_s=prefill.new_tokens / prefill.duration_ms * MS_PER_S,
            decode_tokens_per_s=(len(events) - 1) / decode_ms * MS_PER_S if decode_ms else None,
            kept_fraction=prefill.pairs.past_fraction,
            total_kept_fraction=prefill.pairs.total_fraction,
            reused_tokens=prefill.reused_tokens,
            peak_memory_bytes=peak_memory_bytes(),
        ),
    )


def peak_memory_bytes() -> int:
    """The largest resident set of this process so far, in bytes.

    Linux's getrusage also remembers the size of whoever launched the process, so its own
    high-water mark is preferred where there is one.
    """
    if _LINUX_STATUS.exists():
        for line in _LINUX_STATUS.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * _KIB
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * _MAXRSS_UNIT_BYTES


def write_record(path: Path, record: GenerationRecord | ChatRecord) -> None:
    """Write a record as JSON, atomically. Raises `OutputError`."""
    write_document(path, record)


def summary(record: GenerationRecord) -> str:
    """The figures in one line."""
    stats = record.stats
    decode = "n/a" if stats.decode_tokens_per_s is None else f"{stats.decode_tokens_per_s:.1f}"
    return (
        f"prefill: {stats.prefill_tokens_per_s:.1f} tok/s, decode: {decode} tok/s, "
        f"first token: {stats.ttft_ms:.0f} ms, kept: {stats.kept_fraction:.1%} of the past, "
        f"{stats.total_kept_fraction:.1%} of all pairs"
    )


def metrics(records: Sequence[GenerationRecord], cached_tokens: int, capacity_tokens: int) -> str:
    """Totals of several answers and the state of the cache, one `name value` a line."""
    prompt = sum(len(record.prompt_token_ids) for record in records)
    reused = sum(record.stats.reused_tokens for record in records)
    values = {
        "answers_total": len(records),
        "prompt_tokens_total": prompt,
        "prefilled_tokens_total": prompt - reused,
        "output_tokens_total": sum(len(record.output_token_ids) for record in records),
        "cached_tokens": cached_tokens,
        "context_window_tokens": capacity_tokens,
        "peak_memory_bytes": peak_memory_bytes(),
    }
    return "\n".join(f"{name} {value}" for name, value in values.items())
