"""Top-k of scores of 8 bits: the lists of `RowSelector`, from rows that are bytes.

A vector holds four times the scores, and the threshold has no more than 8 bits: they are found one
by one, each by one pass that counts the row against a candidate, without a branch that depends on
the data. Scores of 8 bits tie often, so surplus ties must cost nothing: they are dropped from the
masks while the list is written, after a single change of the threshold.

Source: "Dynamic Sparse Attention on Mobile SoCs", the top-k stage; the search is ours.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm.script import tirx as T

from ..constants import MASKED_BYTE
from ..features import CpuFeatures, Isa
from ..simd.lane_bits import bits_dtype, lane_bits
from ..simd.left_pack import bit_pack, bit_pack_lanes
from ..simd.vector import Expr, int32_dtype, splat, sum_lanes_i32

_SCORE_BITS = 8
_UINT8_MAX = 255
_NO_LIMIT = 2**31 - 1


def byte_lanes(features: CpuFeatures) -> int:
    """Bytes of one vector register; rows are padded with MASKED_BYTE to a multiple of it."""
    return 4 * features.lanes


@T.meta_class
class MaskCount:
    """Counts the bits of each comparison: x86 moves a mask to where bits are counted at once.

    Attributes
    ----------
    count : (1,) int32, the last count.
    """

    def __init__(self, lanes: int) -> None:
        self.lanes = lanes
        self.count = T.alloc_buffer((1,), "int32")

    @T.inline
    def count_above(self, scores: T.Buffer, row: Expr, num_vectors: Expr, threshold: Expr) -> None:
        """count = the row's scores above the threshold, an int8 scalar."""
        self.count[0] = 0
        for v in range(num_vectors):
            above = T.meta_var(
                scores[row, T.ramp(v * self.lanes, 1, self.lanes)] > splat(threshold, self.lanes)
            )
            self.count[0] = self.count[0] + T.Cast(
                "int32", T.popcount(lane_bits(above, self.lanes))
            )


@T.meta_class
class LaneCount:
    """Counts in every lane, as far as a byte reaches, then adds the lanes: for vector units that
    have no masks. Attributes as of `MaskCount`."""

    def __init__(self, lanes: int) -> None:
        self.lanes = lanes
        self.count = T.alloc_buffer((1,), "int32")
        self.sums = T.alloc_buffer((lanes,), "uint8")

    @T.inline
    def count_above(self, scores: T.Buffer, row: Expr, num_vectors: Expr, threshold: Expr) -> None:
        """See `MaskCount`."""
        self.count[0] = 0
        for block in range(T.ceildiv(num_vectors, _UINT8_MAX)):
            first = T.bind(block * _UINT8_MAX)
            self.sums[T.ramp(0, 1, self.lanes)] = splat(T.uint8(0), self.lanes)
            for v in range(T.min(_UINT8_MAX, num_vectors - first)):
                self.sums[T.ramp(0, 1, self.lanes)] = self.sums[T.ramp(0, 1, self.lanes)] + T.Cast(
                    f"uint8x{self.lanes}",
                    scores[row, T.ramp((first + v) * self.lanes, 1, self.lanes)]
                    > splat(threshold, self.lanes),
                )
            self.count[0] = self.count[0] + sum_lanes_i32(
                T.Cast(int32_dtype(self.lanes), self.sums[T.ramp(0, 1, self.lanes)]), self.lanes
            )


_COUNTS: dict[Isa, Callable[[int], Any]] = {
    "generic": LaneCount,
    "avx2": MaskCount,
    "avx512": MaskCount,
    "neon": LaneCount,
}


@T.meta_class
class ByteSelector:
    """Selects the k largest scores of a row. Make one per task; `start` it before the first row.

    `scores` (any, n) int8 has rows padded with MASKED_BYTE to `num_vectors` vectors of
    `vector_scores`; `indices` (any, k + index_slack) int32.
    """

    def __init__(self, features: CpuFeatures) -> None:
        self.vector_scores = byte_lanes(features)
        self.pack_lanes = bit_pack_lanes(features)
        self.pack: Any = bit_pack(features)
        self.counter: Any = _COUNTS[features.isa](self.vector_scores)
        self.floor = T.alloc_buffer((1,), "int32")
        self.above = T.alloc_buffer((1,), "int32")

    def vector(self, index: Expr) -> Expr:
        """The positions of the `index`-th vector."""
        return T.ramp(index * self.vector_scores, 1, self.vector_scores)

    def score(self, offset: Expr) -> Expr:
        """MASKED_BYTE + offset, an int8 scalar."""
        return T.Cast("int8", T.int32(MASKED_BYTE) + offset)

    @T.inline
    def start(self) -> None:
        self.pack.start()

    @T.inline
    def search(self, scores: T.Buffer, row: Expr, num_vectors: Expr, wanted: Expr) -> None:
        """floor = the largest, as an offset from MASKED_BYTE, that at least `wanted` scores lie
        above; above = how many lie above floor + 1, fewer than `wanted`."""
        for bit in range(_SCORE_BITS):
            candidate = T.bind(self.floor[0] + T.shift_right(T.int32(1 << _SCORE_BITS - 1), bit))
            self.counter.count_above(scores, row, num_vectors, self.score(candidate))
            count = T.bind(self.counter.count[0])
            # the last candidate refused is floor + 1
            self.above[0] = T.Select(count < wanted, count, self.above[0])
            self.floor[0] = T.Select(count < wanted, self.floor[0], candidate)

    @T.inline
    def write(
        self,
        scores: T.Buffer,
        row: Expr,
        num_vectors: Expr,
        wanted: Expr,
        indices: T.Buffer,
        out_row: Expr,
    ) -> None:
        """The list: all scores above floor + 1, and the first of those equal to it."""
        low = T.alloc_buffer((self.vector_scores,), "int8")
        ties_left = T.alloc_buffer((1,), "int32")
        chosen = T.alloc_buffer((1,), bits_dtype(self.vector_scores))
        surplus = T.alloc_buffer((1,), bits_dtype(self.vector_scores))
        one = T.meta_var(T.Cast(bits_dtype(self.vector_scores), 1))
        tied = T.bind(self.score(self.floor[0] + 1))
        low[self.vector(0)] = splat(self.score(self.floor[0]), self.vector_scores)
        ties_left[0] = wanted - self.above[0]
        self.pack.count[0] = 0
        for v in range(num_vectors):
            ties = T.bind(
                lane_bits(
                    scores[row, self.vector(v)] == splat(tied, self.vector_scores),
                    self.vector_scores,
                )
            )
            num_ties = T.bind(T.Cast("int32", T.popcount(ties)))
            chosen[0] = lane_bits(
                scores[row, self.vector(v)] > low[self.vector(0)], self.vector_scores
            )
            if num_ties > ties_left[0]:  # once a row: from here on no more ties
                surplus[0] = ties
                for _ in range(ties_left[0]):
                    surplus[0] = surplus[0] & (surplus[0] - one)
                chosen[0] = chosen[0] ^ surplus[0]
                low[self.vector(0)] = splat(tied, self.vector_scores)
                ties_left[0] = T.int32(_NO_LIMIT)
            ties_left[0] = ties_left[0] - num_ties
            for part in T.unroll(self.vector_scores // self.pack_lanes):
                self.pack.append_bits(
                    T.bind(self.part(chosen[0], part)),
                    v * self.vector_scores + part * self.pack_lanes,
                    indices,
                    out_row,
                )

    def part(self, bits: Expr, index: int) -> Expr:
        """The `index`-th `pack_lanes` of a vector's bits; uint32."""
        shift = T.Cast(bits_dtype(self.vector_scores), index * self.pack_lanes)
        return T.Cast("uint32", T.shift_right(bits, shift)) & T.uint32((1 << self.pack_lanes) - 1)

    @T.inline
    def select(
        self,
        scores: T.Buffer,
        row: Expr,
        num_vectors: Expr,
        visible: Expr,
        k: Expr,
        indices: T.Buffer,
        out_row: Expr,
        counts: T.Buffer,
    ) -> None:
        """`indices[out_row, : counts[out_row]]` = the selection of `scores[row]`, of which
        `visible` positions aren't masked; counts = min(k, visible)."""
        wanted = T.bind(T.min(k, visible))
        counts[out_row] = wanted
        if wanted > 0:
            self.floor[0] = 0
            self.above[0] = 0
            if wanted < visible:
                self.search(scores, row, num_vectors, wanted)
            self.write(scores, row, num_vectors, wanted, indices, out_row)
