"""Counting a row's scores above a threshold: what the search for the k-th largest repeats.

Each way is made inside a task, for vectors of `lanes` scores; then `count_above(scores, row,
num_vectors, threshold)` leaves the count in `count[0]`, int32. `scores` (any, n) is padded to
`num_vectors` vectors with what no threshold lies below.
"""

from __future__ import annotations

from tvm.script import tirx as T

from ..simd.lane_bits import lane_bits
from ..simd.vector import Expr, int32_dtype, splat, sum_lanes_i32

COUNT_VECTORS = 4
"""Vectors of int32 counted per step, each into its own sum, so that adds don't wait for one
another."""

_UINT8_MAX = 255


@T.meta_class
class MaskCount:
    """Counts the bits of each comparison, of scores of any type: x86 moves masks to where bits are
    counted at once."""

    def __init__(self, lanes: int) -> None:
        self.lanes = lanes
        self.count = T.alloc_buffer((1,), "int32")

    @T.inline
    def count_above(self, scores: T.Buffer, row: Expr, num_vectors: Expr, threshold: Expr) -> None:
        self.count[0] = 0
        for v in range(num_vectors):
            above = T.meta_var(
                scores[row, T.ramp(v * self.lanes, 1, self.lanes)] > splat(threshold, self.lanes)
            )
            self.count[0] = self.count[0] + T.Cast(
                "int32", T.popcount(lane_bits(above, self.lanes))
            )


@T.meta_class
class Int32Count:
    """Counts int32 in every lane, then adds the lanes; `num_vectors` is a multiple of
    COUNT_VECTORS."""

    def __init__(self, lanes: int) -> None:
        self.lanes = lanes
        self.count = T.alloc_buffer((1,), "int32")
        self.sums = T.alloc_buffer((COUNT_VECTORS * lanes,), "int32")

    def vector(self, index: Expr) -> Expr:
        """The positions of the `index`-th vector."""
        return T.ramp(index * self.lanes, 1, self.lanes)

    @T.inline
    def count_above(self, scores: T.Buffer, row: Expr, num_vectors: Expr, threshold: Expr) -> None:
        for u in T.unroll(COUNT_VECTORS):
            self.sums[self.vector(u)] = splat(T.int32(0), self.lanes)
        for step in range(num_vectors // COUNT_VECTORS):
            for u in T.unroll(COUNT_VECTORS):
                self.sums[self.vector(u)] = self.sums[self.vector(u)] + T.Cast(
                    int32_dtype(self.lanes),
                    scores[row, self.vector(step * COUNT_VECTORS + u)]
                    > splat(threshold, self.lanes),
                )
        for u in T.unroll(COUNT_VECTORS - 1):
            self.sums[self.vector(0)] = self.sums[self.vector(0)] + self.sums[self.vector(u + 1)]
        self.count[0] = sum_lanes_i32(self.sums[self.vector(0)], self.lanes)


@T.meta_class
class ByteCount:
    """Counts bytes in every lane, as far as a byte reaches, then adds the lanes: for vector units
    whose masks are costly to move."""

    def __init__(self, lanes: int) -> None:
        self.lanes = lanes
        self.count = T.alloc_buffer((1,), "int32")
        self.sums = T.alloc_buffer((lanes,), "uint8")

    def vector(self, index: Expr) -> Expr:
        """The positions of the `index`-th vector."""
        return T.ramp(index * self.lanes, 1, self.lanes)

    @T.inline
    def count_above(self, scores: T.Buffer, row: Expr, num_vectors: Expr, threshold: Expr) -> None:
        self.count[0] = 0
        for block in range(T.ceildiv(num_vectors, _UINT8_MAX)):
            first = T.bind(block * _UINT8_MAX)
            self.sums[self.vector(0)] = splat(T.uint8(0), self.lanes)
            for v in range(T.min(_UINT8_MAX, num_vectors - first)):
                self.sums[self.vector(0)] = self.sums[self.vector(0)] + T.Cast(
                    f"uint8x{self.lanes}",
                    scores[row, self.vector(first + v)] > splat(threshold, self.lanes),
                )
            self.count[0] = self.count[0] + sum_lanes_i32(
                T.Cast(int32_dtype(self.lanes), self.sums[self.vector(0)]), self.lanes
            )
