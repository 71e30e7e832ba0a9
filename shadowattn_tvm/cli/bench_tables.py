"""Benchmarks for people: one line a measurement."""

from __future__ import annotations

from collections.abc import Sequence

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from ..bench import AttentionRow, DecodeRow, PipelineRow, SkippedAttention


def print_attention(rows: Sequence[AttentionRow], skipped: Sequence[SkippedAttention]) -> None:
    """Every contender, and how many times faster than dense attention on one core it is; then who
    is missing."""
    table = _table(
        "Attention of one layer to everything older",
        ("context", "chunk", "contender", "cores", "past", "ms", "spread", "C/G-Full"),
    )
    full = {(row.context, row.chunk): row.median_ms for row in rows if row.contender == "cg_full"}
    for row in rows:
        table.add_row(
            f"{row.context:,}",
            str(row.chunk),
            row.contender,
            str(1 + row.workers),
            f"{row.past_fraction:.1%}",
            f"{row.median_ms:.2f}",
            f"{row.spread_ms:.2f}",
            f"{full[row.context, row.chunk] / row.median_ms:.2f}x",
        )
    Console().print(table)
    for each in skipped:
        Console().print(
            f"{each.contender}: not timed, {each.reason}", highlight=False, markup=False
        )


def print_pipeline(rows: Sequence[PipelineRow]) -> None:
    """Every context and chunk: the stages alone, both pipelined, and by what the bound is missed;
    then a launch for every list, and one core doing everything."""
    table = _table(
        "The pipeline of one layer, ms",
        (
            *("context", "chunk", "lists", "pilot", "attend", "both", "bound", "ratio"),
            *("stepwise", "1 core"),
        ),
    )
    for row in rows:
        figures = (row.pilot_ms, row.attend_ms, row.makespan_ms, row.lower_bound_ms)
        table.add_row(
            f"{row.context:,}",
            str(row.chunk),
            str(row.items),
            *(f"{figure:.2f}" for figure in figures),
            f"{row.makespan_ms / row.lower_bound_ms:.3f}",
            f"{row.per_launch_ms:.2f}",
            f"{row.sequential_ms:.2f}",
        )
    Console().print(table)


def print_decode(rows: Sequence[DecodeRow]) -> None:
    """Both contenders, and how many times faster than dense decode each is."""
    table = _table(
        "Attention of one new token, one layer",
        ("context", "contender", "attended", "us", "spread", "dense"),
    )
    dense = {row.context: row.median_ms for row in rows if row.contender == "dense_decode"}
    for row in rows:
        table.add_row(
            f"{row.context:,}",
            row.contender,
            f"{row.attended_fraction:.1%}",
            f"{1e3 * row.median_ms:.0f}",
            f"{1e3 * row.spread_ms:.0f}",
            f"{dense[row.context] / row.median_ms:.2f}x",
        )
    Console().print(table)


def _table(title: str, headings: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)
    for heading in headings:
        table.add_column(heading, justify="left" if heading == "contender" else "right")
    return table
