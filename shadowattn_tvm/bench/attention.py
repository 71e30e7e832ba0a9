"""`bench attention`: one prefill chunk's attention to everything older, contender by contender."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from tir_kernels.spec import ShadowSpec

from .contenders import Entry, budgeted_entry, dense_entry, static_int8_entry, torch_entry
from .document import AttentionRow, Inputs
from .inputs import LayerInputs
from .kernels import budgeted_kernels, dense_kernel, stock_kernel
from .timing import Timing, alternate
from .workload import Workload

LayersOf = Callable[[int, int], Sequence[LayerInputs]]
"""(chunk, context) -> the inputs of every layer, or of one that stands for all."""


@dataclass(frozen=True)
class AttentionGrid:
    """What is timed.

    Attributes
    ----------
    spec : the plan's parameters; its layers are timed in turn.
    plan : its name in the rows.
    contexts, chunks : tokens.
    workers : CPU workers beside the NPU's stand-in; 0 = one core does everything.
    rounds : of timing, after one that doesn't count.
    inputs : which `layers` are.
    with_baselines : time the paper's baselines too.
    with_stock : time TVM's own kernel too, which is slow.
    """

    spec: ShadowSpec
    plan: str
    contexts: tuple[int, ...]
    chunks: tuple[int, ...]
    workers: tuple[int, ...]
    rounds: int
    inputs: Inputs
    with_baselines: bool = True
    with_stock: bool = True


def bench_attention(
    grid: AttentionGrid,
    layers: LayersOf,
    *,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Iterator[list[AttentionRow]]:
    """The rows of one context and chunk after the other.

    One core computes whatever has no workers. Raises `CompileError` for workers that the plan has
    no pipeline for and `WrongResultError` for a contender that computes something else.
    """
    budgeted = budgeted_kernels(grid.spec, grid.workers, grid.with_baselines)
    dense = dense_kernel(grid.spec.attention)
    stock = stock_kernel(grid.spec.attention) if grid.with_stock else None
    for context in grid.contexts:
        for chunk in grid.chunks:
            workload = Workload(grid.spec, layers(chunk, context))
            entries = [
                dense_entry("cg_full", dense, workload),
                torch_entry(workload),
                *(budgeted_entry(each, workload) for each in budgeted),
            ]
            if grid.with_baselines:
                entries.append(static_int8_entry(workload))
            if stock is not None:
                entries.append(
                    dense_entry("mlc_tir", stock, workload, grid.spec.attention.sm_scale, 1)
                )
            timings = alternate(
                [entry.contender for entry in entries],
                rounds=grid.rounds,
                on_round=partial(progress, f"{context} tokens, chunk of {chunk}"),
            )
            yield [
                _row(grid, context, chunk, entry, timing)
                for entry, timing in zip(entries, timings, strict=True)
            ]


def _row(
    grid: AttentionGrid, context: int, chunk: int, entry: Entry, timing: Timing
) -> AttentionRow:
    geometry = grid.spec.attention
    return AttentionRow(
        contender=entry.name,
        context=context,
        chunk=chunk,
        heads=geometry.num_q_heads,
        kv_heads=geometry.num_kv_heads,
        head_dim=geometry.head_dim,
        workers=entry.workers,
        inputs=grid.inputs,
        plan=grid.plan if entry.has_budget else None,
        past_fraction=entry.past_fraction,
        median_ms=timing.median_ms,
        spread_ms=timing.spread_ms,
        rounds=timing.rounds,
        checked=True,
    )
