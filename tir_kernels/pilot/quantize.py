"""Static INT8 quantization of queries and keys: bucket scales, bucket choice.

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
from tvm.script import tirx as T

from ..constants import INT8_QMAX
from ..simd.storage import as_float32
from ..simd.vector import Expr, const_f32, int32_dtype, splat
from .int8_dot import Int8DotMethod
from .pilot_rows import PilotRow

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
class KeyQuantizer:
    """Quantizes keys one at a time; `key_block` takes as many as there are lanes.

    Attributes
    ----------
    key : (D,) the last one, in the dot method's key type.
    """

    def __init__(
        self, head_dim: int, dot: Int8DotMethod, view: PilotRow, quant_max: int = INT8_QMAX
    ) -> None:
        self.dot = dot
        self.view = view
        self.quant_max = quant_max
        self.lanes = view.lanes
        self.vectors = view.vectors
        self.key = T.alloc_buffer((head_dim,), dot.key_dtype)

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
