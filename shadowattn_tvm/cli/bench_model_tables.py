"""Whole-model benchmarks for people: one line a contender and length."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..bench.model_document import DecodeRow, ModelRow, PrefillRow, SkippedContender

_MIB = 1 << 20
_COMMON = ("weights", "past", "KL", "MiB")


def print_prefill(rows: Sequence[PrefillRow], skipped: Sequence[SkippedContender]) -> None:
    """Every contender, and how many times faster than the dense library it is."""
    table = _table(
        "Time to the first token", ("prompt", "contender", *_COMMON, "ms", "spread", "dense")
    )
    dense = {row.prompt_tokens: row.ttft_ms for row in rows if row.contender == "dense"}
    for row in rows:
        table.add_row(
            f"{row.prompt_tokens:,}",
            row.contender,
            *_cells(row),
            f"{row.ttft_ms:,.0f}",
            "" if row.spread_ms is None else f"{row.spread_ms:,.0f}",
            f"{dense[row.prompt_tokens] / row.ttft_ms:.2f}x",
        )
    _print(table, rows, skipped)


def print_decode(rows: Sequence[DecodeRow], skipped: Sequence[SkippedContender]) -> None:
    """Every contender, and how many times faster than the dense library it is."""
    table = _table("Decoding", ("context", "contender", *_COMMON, "tokens/s", "spread", "dense"))
    dense = {row.context: row.tokens_per_second for row in rows if row.contender == "dense"}
    for row in rows:
        table.add_row(
            f"{row.context:,}",
            row.contender,
            *_cells(row),
            f"{row.tokens_per_second:.1f}",
            "" if row.spread is None else f"{row.spread:.1f}",
            f"{row.tokens_per_second / dense[row.context]:.2f}x",
        )
    _print(table, rows, skipped)


def _cells(row: ModelRow) -> tuple[str, ...]:
    """What `_COMMON` heads; a KL divergence is marked where the likeliest token differs."""
    agreement, peak = row.agreement, row.peak_memory_bytes
    kl = "" if agreement is None else f"{agreement.kl_nats:.1e}"
    return (
        row.weights,
        f"{row.past_fraction:.1%}",
        kl if agreement is None or agreement.same_token else f"{kl} *",
        "" if peak is None else f"{peak / _MIB:,.0f}",
    )


def _table(title: str, headings: Sequence[str]) -> Table:
    table = Table(
        title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False, collapse_padding=True
    )
    for heading in headings:
        text = heading in ("contender", "weights")
        table.add_column(heading, justify="left" if text else "right", no_wrap=True)
    return table


def _print(table: Table, rows: Sequence[ModelRow], skipped: Sequence[SkippedContender]) -> None:
    console = Console()
    console.print(table)
    if any(row.agreement is not None and not row.agreement.same_token for row in rows):
        console.print("* another likeliest token than the dense library's")
    for each in skipped:
        console.print(f"skipped {each.contender}: {escape(each.reason)}", highlight=False)
