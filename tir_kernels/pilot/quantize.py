"""Static INT8 quantization of queries and keys: bucket scales, bucket choice, packed keys.

Contract, the same bits on every target:
- `q8 = clamp(round_half_even(x / scale), -127, 127)`, with a float32 division; no NaNs.
- A head's measured scale is absmax / 127 over its rows. Of the three scales of an axis of the
  bucket grid it takes the nearest, the smaller one of two equally near. (The paper takes the
  grid's cell at the smallest squared distance; the axes are independent, so that is the same.)

Source: "Dynamic Sparse Attention on Mobile SoCs", scale buckets of the offline and online stages.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from tvm import tirx
from tvm.script import tirx as T

from ..constants import INT8_QMAX
from ..features import CpuFeatures
from ..simd.storage import as_float32
from ..simd.vector import Expr, const_f32, int32_dtype, splat
from ..spec import AttentionSpec
from .int8_dot import Int8DotMethod, int8_dot_method
from .pilot_rows import AbsoluteMaximum, PilotRow

BUCKETS_PER_AXIS = 3
"""The paper's: {lambda * sigma, lambda, lambda / sigma}."""


def bucket_scales(
    center: float, sigma: float, per_axis: int = BUCKETS_PER_AXIS
) -> tuple[float, ...]:
    """The scales of one axis of the bucket grid, ascending, each rounded to float32."""
    middle = per_axis // 2
    return tuple(float(np.float32(center * sigma**i)) for i in range(middle, -middle - 1, -1))


def nearest_bucket(absmax: Expr, scales: Sequence[Expr], quant_max: int = INT8_QMAX) -> Expr:
    """The index, int32, of the scale nearest to absmax / quant_max; the smaller scale of two
    equally near. `scales` ascend."""
    measured = T.bind(absmax / T.float32(quant_max))
    nearest, distance = T.int32(0), T.bind(T.abs(measured - scales[0]))
    for index, scale in enumerate(scales[1:], start=1):
        other = T.bind(T.abs(measured - scale))
        nearest = T.bind(T.Select(other < distance, T.int32(index), nearest))
        distance = T.bind(T.min(other, distance))
    return nearest


def quantize_lanes(x: Expr, scale: Expr, lanes: int, quant_max: int = INT8_QMAX) -> Expr:
    """float32 lanes as int32 lanes in -quant_max..quant_max.

    Clamped before rounding, which is the same for integer bounds and keeps infinities out of the
    conversion to integers.
    """
    clamped = T.max(
        T.min(x / splat(scale, lanes), const_f32(quant_max, lanes)), const_f32(-quant_max, lanes)
    )
    return T.Cast(int32_dtype(lanes), T.nearbyint(clamped))


@T.meta_class
class KeyPacker:
    """Quantizes keys into the layout of a dot method, block by block."""

    def __init__(
        self, head_dim: int, dot: Int8DotMethod, view: PilotRow, quant_max: int = INT8_QMAX
    ) -> None:
        self.dot = dot
        self.view = view
        self.quant_max = quant_max
        self.lanes = view.lanes
        self.vectors = view.vectors
        self.steps = head_dim // dot.group
        self.key = T.alloc_buffer((head_dim,), dot.key_dtype)

    @T.inline
    def pack_block(
        self,
        rows: T.Buffer,
        row_table: T.Buffer,
        row_offset: Expr,
        num_keys: Expr,
        block: Expr,
        scale: Expr,
        means: T.Buffer,
        mean: Expr,
        packed: T.Buffer,
        packed_block: Expr,
    ) -> None:
        """`packed[packed_block]` = the keys `block * lanes` and on: key i is row
        `row_table[i] + row_offset` of `rows` (any, head_dim), those from `num_keys` on are zeros;
        `means` and `mean` as of `PilotRow.load`."""
        for i in range(self.dot.lanes):
            key = T.bind(block * self.dot.lanes + i)
            if key < num_keys:
                row = T.bind(T.Cast("int64", row_table[key] + row_offset))
                if self.view.changed:
                    self.view.load(rows, row, means, mean)
                    self.quantize(self.view.row, 0, scale)
                else:
                    self.quantize(rows, row, scale)
            else:
                for j in T.unroll(self.vectors):
                    self.key[T.ramp(j * self.lanes, 1, self.lanes)] = splat(
                        T.Cast(self.dot.key_dtype, T.int32(self.dot.key_offset)), self.lanes
                    )
            for step in T.unroll(self.steps):
                for e in T.vectorized(self.dot.group):
                    packed[packed_block, step, i * self.dot.group + e] = self.key[
                        step * self.dot.group + e
                    ]

    @T.inline
    def quantize(self, rows: T.Buffer, row: Expr, scale: Expr) -> None:
        """`key` = `rows[row]`, quantized."""
        for j in T.unroll(self.vectors):
            self.key[T.ramp(j * self.lanes, 1, self.lanes)] = T.Cast(
                f"{self.dot.key_dtype}x{self.lanes}",
                quantize_lanes(
                    as_float32(rows[row, T.ramp(j * self.lanes, 1, self.lanes)]),
                    scale,
                    self.lanes,
                    self.quant_max,
                )
                + splat(T.int32(self.dot.key_offset), self.lanes),
            )


def quantize_keys(
    spec: AttentionSpec, features: CpuFeatures, quant_max: int = INT8_QMAX
) -> tirx.PrimFunc:
    """The standalone stage: one KV head's keys, measured, quantized and packed.

    Variables: `rows` (R, D), dtype of the spec; `row_table` (n,) int32, key i is row
    `row_table[i] + row_offset`; `scales` (3,) float32, ascending; outputs `packed`
    (blocks, D / group, lanes * group) in the dot method's key type, where `blocks` lanes hold n or
    more keys (the rest become zeros), and `chosen` (1,) float32, the scale used.
    """
    dot = int8_dot_method(features, quant_max)
    dim, lanes = spec.head_dim, features.lanes

    @T.prim_func(s_tir=True)
    def shadowattn_quantize_keys(
        var_rows: T.handle,  # (R, D)
        var_row_table: T.handle,  # (n,)
        var_scales: T.handle,  # (3,)
        var_packed: T.handle,  # (blocks, D / group, lanes * group)
        var_chosen: T.handle,  # (1,)
        row_offset: T.int32,
    ) -> None:
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
        num_rows, num_keys, num_blocks = T.int32(), T.int32(), T.int32()
        rows = T.match_buffer(var_rows, (num_rows, dim), spec.dtype)
        row_table = T.match_buffer(var_row_table, (num_keys,), "int32")
        scales = T.match_buffer(var_scales, (BUCKETS_PER_AXIS,), "float32")
        packed = T.match_buffer(
            var_packed, (num_blocks, dim // dot.group, dot.lanes * dot.group), dot.key_dtype
        )
        chosen = T.match_buffer(var_chosen, (1,), "float32")
        view = PilotRow(dim, lanes, centered=False, rotated=False)
        largest = AbsoluteMaximum(view)
        packer = KeyPacker(dim, dot, view, quant_max)
        largest.clear()
        for key in range(num_keys):
            largest.include(rows, T.Cast("int64", row_table[key] + row_offset), rows, 0)
        chosen[0] = scales[
            nearest_bucket(largest.value(), [scales[0], scales[1], scales[2]], quant_max)
        ]
        for block in range(num_blocks):
            packer.pack_block(
                rows, row_table, row_offset, num_keys, block, chosen[0], rows, 0, packed, block
            )

    return shadowattn_quantize_keys
