"""Top-k: per query row the k largest INT32 scores, ties to the lower index, indices ascending.
Scores of 8 bits have a selector of their own (`byte_top_k`), with the same lists.

The threshold is found by bisection on the integer score: counting a row against a candidate is one
compare and one add per vector, from L1, and the search ends early when exactly k scores lie above.
Masked positions hold `MASKED_SCORE`, below every score: they're skipped, never selected.

Source: "Dynamic Sparse Attention on Mobile SoCs", the top-k stage; the search is ours.
"""

from __future__ import annotations

from typing import Any

from tvm.script import tirx as T

from ..constants import MASKED_SCORE
from ..features import CpuFeatures
from ..simd.left_pack import bit_pack_lanes, left_pack
from ..simd.vector import Expr, int32_dtype, splat, sum_lanes_i32

_MAX_SCORE = 2**31 - 1

COUNT_VECTORS = 4
"""Vectors counted per step, each into its own sum, so that adds don't wait for one another."""


def row_multiple(features: CpuFeatures) -> int:
    """Score rows are padded to a multiple of this: whole steps of a count, whole vectors of
    bytes."""
    return features.lanes * COUNT_VECTORS


def index_slack(features: CpuFeatures) -> int:
    """Entries that an index row needs beyond the k it will hold, whoever selects."""
    return bit_pack_lanes(features)


@T.meta_class
class RowSelector:
    """Selects the k largest scores of a row. Make one per task; `start` it before the first row,
    unless it was made `like` one that was started.

    `scores` (any, n) int32 is scratch whose rows are padded with MASKED_SCORE to `num_vectors`
    vectors of `vector_scores`, a multiple of COUNT_VECTORS; `indices` (any, k + index_slack) int32.
    """

    def __init__(self, features: CpuFeatures, like: RowSelector | None = None) -> None:
        self.lanes = features.lanes
        self.vector_scores = features.lanes
        self.pack: Any = left_pack(features, None if like is None else like.pack)
        self.low = T.alloc_buffer((1,), "int32")
        self.high = T.alloc_buffer((1,), "int32")
        self.above = T.alloc_buffer((1,), "int32")
        self.count = T.alloc_buffer((1,), "int32")

    def vector(self, index: Expr) -> Expr:
        """The positions of the `index`-th vector."""
        return T.ramp(index * self.lanes, 1, self.lanes)

    def reduce(self, op: str, x: Expr) -> Expr:
        return T.call_llvm_pure_intrin("int32", f"llvm.vector.reduce.{op}.v{self.lanes}i32", x)

    @T.inline
    def start(self) -> None:
        self.pack.start()

    @T.inline
    def find_bounds(self, scores: T.Buffer, row: Expr, num_vectors: Expr) -> None:
        """low < every visible score <= high."""
        least = T.alloc_buffer((self.lanes,), "int32")
        most = T.alloc_buffer((self.lanes,), "int32")
        least[self.vector(0)] = splat(T.int32(_MAX_SCORE), self.lanes)
        most[self.vector(0)] = splat(T.int32(MASKED_SCORE), self.lanes)
        for v in range(num_vectors):
            most[self.vector(0)] = T.max(most[self.vector(0)], scores[row, self.vector(v)])
            least[self.vector(0)] = T.min(
                least[self.vector(0)],
                T.Select(
                    scores[row, self.vector(v)] == splat(T.int32(MASKED_SCORE), self.lanes),
                    splat(T.int32(_MAX_SCORE), self.lanes),
                    scores[row, self.vector(v)],
                ),
            )
        self.low[0] = self.reduce("smin", least[self.vector(0)]) - 1
        self.high[0] = self.reduce("smax", most[self.vector(0)])

    @T.inline
    def count_above(self, scores: T.Buffer, row: Expr, num_vectors: Expr, threshold: Expr) -> None:
        """count = the row's scores above the threshold."""
        sums = T.alloc_buffer((COUNT_VECTORS * self.lanes,), "int32")
        for u in T.unroll(COUNT_VECTORS):
            sums[self.vector(u)] = splat(T.int32(0), self.lanes)
        for step in range(num_vectors // COUNT_VECTORS):
            for u in T.unroll(COUNT_VECTORS):
                sums[self.vector(u)] = sums[self.vector(u)] + T.Cast(
                    int32_dtype(self.lanes),
                    scores[row, self.vector(step * COUNT_VECTORS + u)]
                    > splat(threshold, self.lanes),
                )
        for u in T.unroll(COUNT_VECTORS - 1):
            sums[self.vector(0)] = sums[self.vector(0)] + sums[self.vector(u + 1)]
        self.count[0] = sum_lanes_i32(sums[self.vector(0)], self.lanes)

    @T.inline
    def search(self, scores: T.Buffer, row: Expr, num_vectors: Expr, wanted: Expr) -> None:
        """Narrow (low, high], keeping count(> low) > wanted >= count(> high) = above, until
        exactly `wanted` scores lie above low, or high is the only value in between."""
        middle = T.alloc_buffer((1,), "int32")
        self.above[0] = 0
        # a difference may not fit int32, but always fits uint32
        while T.reinterpret("uint32", self.high[0] - self.low[0]) > T.uint32(1):
            middle[0] = (self.low[0] & self.high[0]) + T.shift_right(self.low[0] ^ self.high[0], 1)
            self.count_above(scores, row, num_vectors, middle[0])
            if self.count[0] >= wanted:
                self.low[0] = middle[0]
            if self.count[0] <= wanted:
                self.high[0] = middle[0]
                self.above[0] = self.count[0]

    @T.inline
    def mask_surplus_ties(
        self, scores: T.Buffer, row: Expr, num_vectors: Expr, tied: Expr, quota: Expr
    ) -> None:
        """Mask the scores equal to `tied`, but for the first `quota`."""
        left = T.alloc_buffer((1,), "int32")
        left[0] = quota
        for i in range(num_vectors * self.lanes):
            if scores[row, i] == tied:
                if left[0] > 0:
                    left[0] = left[0] - 1
                else:
                    scores[row, i] = T.int32(MASKED_SCORE)

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
        `visible` positions aren't masked; counts = min(k, visible). Surplus ties get masked."""
        wanted = T.bind(T.min(k, visible))
        counts[out_row] = wanted
        if wanted > 0:
            self.find_bounds(scores, row, num_vectors)
            if wanted < visible:
                self.search(scores, row, num_vectors, wanted)
                if self.above[0] < wanted:
                    self.mask_surplus_ties(
                        scores, row, num_vectors, self.high[0], wanted - self.above[0]
                    )
            self.pack.count[0] = 0
            for v in range(num_vectors):
                self.pack.append(scores, row, v * self.lanes, self.low[0], indices, out_row)
