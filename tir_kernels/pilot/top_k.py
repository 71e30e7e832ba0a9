"""Top-k: per query row the k largest INT32 scores, ties to the lower index, indices ascending.
Scores of 8 bits have a selector of their own (`byte_top_k`), with the same lists.

The threshold is found by bisection on the integer score: counting a row against a candidate is a
few instructions per vector, from L1, and the search ends early when exactly k scores lie above.
Masked positions hold `MASKED_SCORE`, below every score: they're skipped, never selected.

Source: "Dynamic Sparse Attention on Mobile SoCs", the top-k stage; the search is ours.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm.script import tirx as T

from ..constants import MASKED_SCORE
from ..features import CpuFeatures, Isa
from ..simd.left_pack import pack_lanes
from ..simd.vector import Expr, splat
from .score_counts import COUNT_VECTORS, Int32Count, MaskCount
from .selector import Selector

_MAX_SCORE = 2**31 - 1

_COUNTS: dict[Isa, Callable[[int], Any]] = {
    "generic": Int32Count,
    "avx2": Int32Count,
    "avx512": MaskCount,  # from masks to lanes and back takes half as long again
    "neon": Int32Count,
}


def row_multiple(features: CpuFeatures) -> int:
    """Score rows are padded to a multiple of this: whole steps of a count, whole vectors of
    bytes."""
    return features.lanes * COUNT_VECTORS


def index_slack(features: CpuFeatures) -> int:
    """Entries that an index row needs beyond the k it will hold, whoever selects."""
    return pack_lanes(features)


class RowSelector(Selector):
    """Selects from rows of int32, padded with MASKED_SCORE to a multiple of COUNT_VECTORS
    vectors."""

    def __init__(self, features: CpuFeatures, like: RowSelector | None = None) -> None:
        super().__init__(features, "int32", MASKED_SCORE, features.lanes, like)
        self.lanes = features.lanes
        self.counter: Any = _COUNTS[features.isa](features.lanes)

    def vector(self, index: Expr) -> Expr:
        """The positions of the `index`-th vector."""
        return T.ramp(index * self.lanes, 1, self.lanes)

    def reduce(self, op: str, x: Expr) -> Expr:
        return T.call_llvm_pure_intrin("int32", f"llvm.vector.reduce.{op}.v{self.lanes}i32", x)

    @T.inline
    def find_bounds(self, scores: T.Buffer, row: Expr, num_vectors: Expr) -> None:
        """low < every visible score <= tied."""
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
        self.tied[0] = self.reduce("smax", most[self.vector(0)])

    @T.inline
    def search(self, scores: T.Buffer, row: Expr, num_vectors: Expr, wanted: Expr) -> None:
        """Narrow (low, tied], keeping count(> low) > wanted >= count(> tied) = above, until
        exactly `wanted` scores lie above low, or `tied` is the only value in between."""
        middle = T.alloc_buffer((1,), "int32")
        self.find_bounds(scores, row, num_vectors)
        self.above[0] = 0
        # a difference may not fit int32, but always fits uint32
        while T.reinterpret("uint32", self.tied[0] - self.low[0]) > T.uint32(1):
            middle[0] = (self.low[0] & self.tied[0]) + T.shift_right(self.low[0] ^ self.tied[0], 1)
            self.counter.count_above(scores, row, num_vectors, middle[0])
            if self.counter.count[0] >= wanted:
                self.low[0] = middle[0]
            if self.counter.count[0] <= wanted:
                self.tied[0] = middle[0]
                self.above[0] = self.counter.count[0]
