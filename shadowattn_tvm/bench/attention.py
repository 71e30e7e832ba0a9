"""`bench attention`: one prefill chunk's attention to everything older, contender by contender."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from tir_kernels.spec import ShadowSpec

from .contenders import Entry, budgeted_entry, dense_entry, static_int8_entry, torch_entry
from .document import AttentionRow, Inputs, SkippedAttention
from .inputs import LayerInputs
from .kernels import budgeted_kernels, dense_kernel, stock_kernel
from .rig import HERE, Rig
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
    rig: Rig = HERE,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Iterator[list[AttentionRow]]:
    """The rows of one context and chunk after the other, timed on the rig.

    One core computes whatever has no workers. Raises `CompileError` for workers that the plan has
    no pipeline for, `DeviceError` if the rig's device is lost or has too few threads, and
    `WrongResultError` for a contender that computes something else.
    """
    skipped = {each.contender for each in skipped_contenders(rig)}
    budgeted = budgeted_kernels(rig, grid.spec, grid.workers, grid.with_baselines)
    dense = dense_kernel(rig, grid.spec.attention)
    stock = stock_kernel(rig, grid.spec.attention) if grid.with_stock else None
    for context in grid.contexts:
        for chunk in grid.chunks:
            workload = Workload(rig, grid.spec, layers(chunk, context))
            entries = [
                dense_entry("cg_full", dense, workload),
                *([] if "torch_sdpa" in skipped else [torch_entry(workload)]),
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
                use_threads=rig.use_threads,
                on_round=partial(progress, f"{context} tokens, chunk of {chunk}"),
            )
            yield [
                _row(grid, context, chunk, entry, timing)
                for entry, timing in zip(entries, timings, strict=True)
            ]


def skipped_contenders(rig: Rig) -> tuple[SkippedAttention, ...]:
    """Those that can't run on the rig, with the reason."""
    if not rig.is_here:
        return (SkippedAttention(contender="torch_sdpa", reason="runs on this machine only"),)
    if importlib.util.find_spec("torch") is None:
        reason = "not installed: pip install 'shadowattn-tvm[calibrate]'"
        return (SkippedAttention(contender="torch_sdpa", reason=reason),)
    return ()


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
