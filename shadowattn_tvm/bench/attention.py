"""`bench attention`: one prefill chunk's attention to everything older, contender by contender."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import tvm

from tir_kernels.spec import AttentionSpec, ShadowSpec, keep_count

from .document import AttentionContender, AttentionRow, Inputs
from .inputs import LayerInputs, SlotCall
from .kernels import dense_kernel, shadow_kernel, stock_kernel
from .reference import dense_reference, require_close, shadow_reference
from .timing import Contender, Timing, alternate, use_threads

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
    with_stock : time TVM's own kernel too, which is slow.
    """

    spec: ShadowSpec
    plan: str
    contexts: tuple[int, ...]
    chunks: tuple[int, ...]
    workers: tuple[int, ...]
    rounds: int
    inputs: Inputs
    with_stock: bool = True


@dataclass(frozen=True)
class _Entry:
    """A contender with what its row says of it."""

    name: AttentionContender
    workers: int
    plan: str | None
    past_fraction: float
    contender: Contender


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
    geometry = grid.spec.attention
    kernels = {workers: shadow_kernel(grid.spec, workers) for workers in grid.workers}
    dense, stock = dense_kernel(geometry), stock_kernel(geometry) if grid.with_stock else None
    for context in grid.contexts:
        for chunk in grid.chunks:
            inputs = layers(chunk, context)
            entries = [
                _dense_entry("cg_full", dense, 0.0, geometry, inputs),
                _torch_entry(geometry, inputs),
                *(
                    _shadow_entry(grid, workers, kernel, inputs)
                    for workers, kernel in kernels.items()
                ),
            ]
            if stock is not None:
                scale = geometry.sm_scale
                entries.append(_dense_entry("mlc_tir", stock, scale, geometry, inputs[:1]))
            timings = alternate(
                [entry.contender for entry in entries],
                rounds=grid.rounds,
                on_round=partial(progress, f"{context} tokens, chunk of {chunk}"),
            )
            yield [
                _row(grid, context, chunk, entry, timing)
                for entry, timing in zip(entries, timings, strict=True)
            ]


def _shadow_entry(
    grid: AttentionGrid,
    workers: int,
    kernel: tvm.runtime.Function,
    inputs: Sequence[LayerInputs],
) -> _Entry:
    spec = grid.spec
    calls = [
        SlotCall(spec.attention, inputs[layer % len(inputs)], layer)
        for layer in range(spec.num_layers)
    ]
    kept = [_past_fraction(spec, layer, len(inputs[0].k)) for layer in range(spec.num_layers)]
    label = f"shadow with {workers} workers"
    use_threads(1 + workers)
    sparsest = int(np.argmin(kept))
    _check(label, calls[sparsest], kernel, 0.0, partial(shadow_reference, spec, sparsest))
    return _Entry(
        name="shadow",
        workers=workers,
        plan=grid.plan,
        past_fraction=float(np.mean(kept)),
        contender=Contender(label, partial(_run_all, calls, kernel, 0.0), len(calls), 1 + workers),
    )


def _dense_entry(
    name: AttentionContender,
    kernel: tvm.runtime.Function,
    scale: float,
    geometry: AttentionSpec,
    inputs: Sequence[LayerInputs],
) -> _Entry:
    calls = [SlotCall(geometry, each, 0) for each in inputs]
    use_threads(1)
    _check(name, calls[0], kernel, scale, partial(dense_reference, geometry))
    run = partial(_run_all, calls, kernel, scale)
    return _Entry(name, 0, None, 1.0, Contender(name, run, len(calls), 1))


def _torch_entry(geometry: AttentionSpec, inputs: Sequence[LayerInputs]) -> _Entry:
    import torch
    from torch.nn.functional import scaled_dot_product_attention

    def heads_first(x: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(x).transpose(0, 1).contiguous()[None]

    layers = [tuple(map(heads_first, (each.q, each.k, each.v))) for each in inputs]

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        return scaled_dot_product_attention(q, k, v, scale=geometry.sm_scale, enable_gqa=True)

    def run() -> None:
        for q, k, v in layers:
            attend(q, k, v)

    torch.set_num_threads(1)
    output = attend(*layers[0])[0].transpose(0, 1).numpy()
    require_close("torch_sdpa", output, dense_reference(geometry, inputs[0]))
    return _Entry("torch_sdpa", 0, None, 1.0, Contender("torch_sdpa", run, len(layers), 1))


def _run_all(calls: Sequence[SlotCall], kernel: tvm.runtime.Function, scale: float) -> None:
    for call in calls:
        call(kernel, scale)


def _check(
    label: str,
    call: SlotCall,
    kernel: tvm.runtime.Function,
    scale: float,
    reference: Callable[[LayerInputs], np.ndarray],
) -> None:
    call(kernel, scale)
    require_close(label, call.output(), reference(call.inputs))


def _past_fraction(spec: ShadowSpec, layer: int, num_past: int) -> float:
    kept = [keep_count(num_past, head.keep_ratio_q16, spec.k_min) for head in spec.heads[layer]]
    return float(np.mean(kept)) / num_past


def _row(
    grid: AttentionGrid, context: int, chunk: int, entry: _Entry, timing: Timing
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
        plan=entry.plan,
        past_fraction=entry.past_fraction,
        median_ms=timing.median_ms,
        spread_ms=timing.spread_ms,
        rounds=timing.rounds,
        checked=True,
    )
