"""Top-k of scores of 8 bits: the lists of `RowSelector`, from rows that are bytes.

A vector holds four times the scores, and the threshold has no more than 8 bits: they are found one
by one, each by one pass that counts the row against a candidate, without a branch that depends on
the data.

Source: "Dynamic Sparse Attention on Mobile SoCs", the top-k stage; the search is ours.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm.script import tirx as T

from ..constants import MASKED_BYTE
from ..features import CpuFeatures, Isa
from ..simd.vector import Expr
from .score_counts import ByteCount, MaskCount
from .selector import Selector

_SCORE_BITS = 8

_COUNTS: dict[Isa, Callable[[int], Any]] = {
    "generic": ByteCount,
    "avx2": MaskCount,
    "avx512": MaskCount,
    "neon": ByteCount,
}


class ByteSelector(Selector):
    """Selects from rows of int8, padded with MASKED_BYTE to vectors of four bytes to an int32
    lane."""

    def __init__(self, features: CpuFeatures) -> None:
        super().__init__(features, "int8", MASKED_BYTE, 4 * features.lanes)
        self.counter: Any = _COUNTS[features.isa](self.vector_scores)
        self.floor = T.alloc_buffer((1,), "int32")

    def score(self, offset: Expr) -> Expr:
        """MASKED_BYTE + offset, an int8 scalar."""
        return T.Cast("int8", T.int32(MASKED_BYTE) + offset)

    @T.inline
    def search(self, scores: T.Buffer, row: Expr, num_vectors: Expr, wanted: Expr) -> None:
        """floor = the largest, as an offset from MASKED_BYTE, that at least `wanted` lie above."""
        self.floor[0] = 0
        self.above[0] = 0
        for bit in range(_SCORE_BITS):
            candidate = T.bind(self.floor[0] + T.shift_right(T.int32(1 << _SCORE_BITS - 1), bit))
            self.counter.count_above(scores, row, num_vectors, self.score(candidate))
            count = T.bind(self.counter.count[0])
            # the last candidate refused is floor + 1
            self.above[0] = T.Select(count < wanted, count, self.above[0])
            self.floor[0] = T.Select(count < wanted, self.floor[0], candidate)
        self.low[0] = self.score(self.floor[0])
        self.tied[0] = self.score(self.floor[0] + 1)
