"""`bench decode-attention`: one new token's attention, dense and sparse, layer after layer."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import tvm

from tir_kernels.attention.dense import dense_paged_decode
from tir_kernels.attention.page_table import KV_PLANES
from tir_kernels.decode.sparse_paged_decode import sparse_paged_decode
from tir_kernels.pilot.shadow_rows import with_key_shadow
from tir_kernels.reference.attention import paged_decode
from tir_kernels.reference.sparse_decode import append
from tir_kernels.reference.sparse_decode import sparse_paged_decode as sparse_twin
from tir_kernels.spec import ShadowSpec, keep_count

from .attention import AttentionGrid, LayersOf
from .document import DecodeRow
from .inputs import Floats, LayerInputs, int32_tensor
from .reference import Expected, require_close
from .rig import HERE, Kernel, Rig
from .timing import Contender, Timing, alternate


def bench_decode_attention(
    grid: AttentionGrid,
    layers: LayersOf,
    *,
    rig: Rig = HERE,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Iterator[list[DecodeRow]]:
    """The rows of one context after the other, every contender on one core of the rig.

    Every layer has pages of its own, as it has in a model, so that a long context's keys come from
    memory. Chunks, workers and baselines of the grid don't matter. Raises `WrongResultError` for a
    kernel that computes something else than its twin, `DeviceError` if the rig's device is lost.
    """
    spec = with_key_shadow(grid.spec)
    kernels = rig.build(
        {
            "dense": dense_paged_decode(spec.attention, rig.features),
            "sparse": sparse_paged_decode(spec, rig.features),
        }
    )
    for context in grid.contexts:
        inputs = layers(1, context)
        calls = [
            _DecodeCall(spec, inputs[layer % len(inputs)], layer, rig.device)
            for layer in range(spec.num_layers)
        ]
        for name, kernel in kernels.items():
            for call in calls[: len(inputs)]:
                call(kernel)
                require_close(name, call.output(), call.expected(name))
        timings = alternate(
            [
                Contender(
                    name,
                    partial(rig.elapsed_ms, partial(_run, calls), kernel),
                    len(calls),
                    threads=1,
                )
                for name, kernel in kernels.items()
            ],
            rounds=grid.rounds,
            use_threads=rig.use_threads,
            on_round=partial(progress, f"{context} tokens"),
        )
        yield [
            _row(grid, spec, context, name == "sparse", timing)
            for name, timing in zip(kernels, timings, strict=True)
        ]


def _run(calls: list[_DecodeCall], kernel: Kernel) -> None:
    for call in calls:
        call(kernel)


class _DecodeCall:
    """The arguments of the decode slot for one layer's sequence, the newest key last."""

    def __init__(
        self, spec: ShadowSpec, inputs: LayerInputs, layer: int, device: tvm.runtime.Device
    ) -> None:
        geometry = spec.attention
        num_keys = len(inputs.k)
        num_pages = -(-num_keys // geometry.page_size)
        shape = (num_pages, KV_PLANES, geometry.stored_heads, geometry.page_size, geometry.head_dim)
        pages = np.zeros(shape, np.float32)
        append(spec, layer, pages, inputs.k, inputs.v, np.arange(num_keys))
        self._spec = spec
        self._layer = layer
        self._q = inputs.q
        self._table = (
            np.array([0, num_pages]),
            np.arange(num_pages),
            np.array([num_keys - (num_pages - 1) * geometry.page_size]),
        )
        self._pages = tvm.runtime.tensor(pages, device)
        no_positions = np.zeros(1)
        self._arguments = (
            tvm.runtime.tensor(inputs.q, device),
            self._pages,
            *(int32_tensor(each, device) for each in (*self._table, no_positions, no_positions)),
        )
        self._output = tvm.runtime.empty(inputs.q.shape, "float32", device)
        self._lse = tvm.runtime.empty(inputs.q.shape[:2], "float32", device)

    def __call__(self, kernel: Kernel) -> None:
        scale = self._layer + self._spec.attention.sm_scale
        no_rotary = (0, 1.0, 10000.0)
        kernel(*self._arguments, self._output, self._lse, *no_rotary, scale)

    def output(self) -> Floats:
        """(1, Hq, D), of the last call."""
        return np.array(self._output.numpy())

    def expected(self, name: str) -> Expected:
        """What the kernel of that name should give."""
        arguments = (self._q, self._pages.numpy(), *self._table)
        if name == "dense":
            output, _ = paged_decode(self._spec.attention, *arguments)
        else:
            output, _ = sparse_twin(self._spec, self._layer, *arguments)
        return Expected(output.astype(np.float32))


def attended_fraction(spec: ShadowSpec, context: int) -> float:
    """The part of `context` keys that sparse decode attends to, averaged over layers and heads."""
    group = spec.attention.group_size
    attended = 0
    for heads in spec.heads:
        for first in range(0, len(heads), group):
            kept = [
                keep_count(context - 1, head.keep_ratio_q16, spec.k_min) + 1
                for head in heads[first : first + group]
            ]
            attended += group * context if context in kept else sum(kept)
    return attended / (context * spec.num_layers * spec.attention.num_q_heads)


def _row(
    grid: AttentionGrid, spec: ShadowSpec, context: int, sparse: bool, timing: Timing
) -> DecodeRow:
    geometry = spec.attention
    return DecodeRow(
        contender="sparse_decode" if sparse else "dense_decode",
        context=context,
        heads=geometry.num_q_heads,
        kv_heads=geometry.num_kv_heads,
        head_dim=geometry.head_dim,
        inputs=grid.inputs,
        plan=grid.plan if sparse else None,
        attended_fraction=attended_fraction(spec, context) if sparse else 1.0,
        median_ms=timing.median_ms,
        spread_ms=timing.spread_ms,
        rounds=timing.rounds,
        checked=True,
    )
