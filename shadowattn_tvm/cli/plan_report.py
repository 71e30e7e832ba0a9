"""A plan as people read it: what it is, what it costs, and a line a layer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from ..plan import HeadOrder, Plan, RatioProfile, unit_launches
from ..plan.ratios import plan_keep_ratios
from ..plan.summary import (
    Budget,
    LayerSummary,
    PlanSummary,
    ProfileSummary,
    Range,
    describe_costs,
    describe_decode,
    describe_order,
    describe_rest,
)
from .plan_pairs import window_pairs

_LEVELS = " ▁▂▃▄▅▆▇█"
"""Bars of an eighth each; the lowest is for heads that keep less than a sixteenth."""


def plan_budget(plan: Plan) -> Budget:
    """The pairs a plan computes over the windows and chunks it was calibrated with."""
    pairs = window_pairs(plan)
    return Budget(
        window_tokens=plan.provenance.window_tokens,
        prefill_chunk_tokens=plan.provenance.prefill_chunk_tokens,
        past_fraction=pairs.past_fraction,
        total_fraction=pairs.total_fraction,
    )


def print_plan(console: Console, name: str, plan: Plan, summary: PlanSummary) -> None:
    """Print a plan's figures."""
    model, made, budget = plan.model, plan.provenance, summary.budget
    facts = {
        "model": f"{model.name}: {model.num_layers} layers, {model.num_q_heads} query and "
        f"{model.num_kv_heads} KV heads of {model.head_dim}; fingerprint {model.fingerprint[:12]}",
        "budget": f"{budget.past_fraction:.2%} of the past (asked for {made.ratio:.2%}), "
        f"{budget.total_fraction:.2%} of all pairs, over {budget.window_tokens:,} tokens in chunks "
        f"of {budget.prefill_chunk_tokens}",
        "kept": f"at least {plan.k_min} positions a sparse head; "
        f"dense layers: {', '.join(map(str, plan.dense_layers)) or 'none'}",
        "sharing": summary.sharing,
        "rest": f"keys on no list: {describe_rest(plan)}",
        "pilot": summary.pilot,
        "buckets": summary.buckets,
        "decode": describe_decode(plan),
        "order": describe_order(plan),
        "costs": describe_costs(plan.stage_costs),
        "made": f"{made.created:%Y-%m-%d %H:%M} by method {made.method}, shadowattn-tvm "
        f"{made.tool_version}",
        "corpus": f"{made.num_windows} windows of {made.window_tokens:,} tokens from "
        f"{_listed([document.name for document in made.corpus])}",
        "hash": summary.plan_hash,
    }
    _print(console, name, facts, summary.layers, plan_keep_ratios(plan), summary.head_order)


def print_profile(
    console: Console, name: str, profile: RatioProfile, summary: ProfileSummary
) -> None:
    """Print a ratio profile's figures."""
    facts = {
        "ratios": f"{summary.num_layers} layers of {summary.num_q_heads} query heads, mean "
        f"{summary.ratio:.2%}, {summary.dense_heads} heads keep everything",
        "source": f"{profile.source.name}, SHA-256 {profile.source.sha256}",
    }
    _print(console, name, facts, summary.layers, profile.keep_ratios)


def _print(
    console: Console,
    name: str,
    facts: dict[str, str],
    layers: Sequence[LayerSummary],
    keep_ratios: Sequence[Sequence[float]],
    order: HeadOrder | None = None,
) -> None:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold")
    grid.add_column(overflow="fold")
    for label, text in facts.items():
        grid.add_row(label, escape(text))
    console.print(f"[bold]{escape(name)}[/]", highlight=False)
    console.print(grid, highlight=False)
    console.print(_layer_table(layers, keep_ratios, order), highlight=False)


def _layer_table(
    layers: Sequence[LayerSummary],
    keep_ratios: Sequence[Sequence[float]],
    order: HeadOrder | None,
) -> Table:
    has_scales = any(layer.q_scale is not None for layer in layers)
    table = Table(box=None, padding=(0, 1), header_style="bold")
    table.add_column("layer", justify="right")
    table.add_column("keep min", justify="right")
    table.add_column("mean", justify="right")
    table.add_column("max", justify="right")
    table.add_column("heads", overflow="fold")
    if has_scales:
        table.add_column("Q scale", justify="right")
        table.add_column("K scale", justify="right")
    if order is not None:
        table.add_column("order", overflow="fold")
    for layer, ratios in zip(layers, keep_ratios, strict=True):
        cells = list(_cells(layer, ratios))
        if order is not None:
            cells.append("" if layer.dense else _turns(order, layer.layer))
        table.add_row(*cells, style="dim" if layer.dense else None)
    return table


def _cells(layer: LayerSummary, ratios: Sequence[float]) -> Iterator[str]:
    yield str(layer.layer)
    if layer.dense:
        yield from ("dense", "", "")
    else:
        keep = layer.keep_ratio
        yield from (f"{keep.min:.1%}", f"{keep.mean:.1%}", f"{keep.max:.1%}")
    yield "".join(_LEVELS[round(ratio * (len(_LEVELS) - 1))] for ratio in ratios)
    for scale in (layer.q_scale, layer.k_scale):
        if scale is not None:
            yield _scales(scale)


def _turns(order: HeadOrder, layer: int) -> str:
    """Units in the order of their turn; a plus between those that are launched together."""
    launches = unit_launches(order)[layer]
    return " ".join("+".join(map(str, launch)) for launch in launches)


def _scales(scale: Range) -> str:
    return f"{scale.min:.4f} - {scale.max:.4f}"


def _listed(names: Sequence[str], shown: int = 6) -> str:
    """Names, the first few of them."""
    more = f" and {len(names) - shown} more documents" if len(names) > shown else ""
    return ", ".join(names[:shown]) + more
