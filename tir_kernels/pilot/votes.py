"""The votes of one list's rows: scores in, one importance per key out, inside a task.

What is computed is in `pooling`, to the bit; here are the ways to compute it, by vector unit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm.script import tirx as T

from ..features import CpuFeatures, Int8Dot
from ..simd.vector import Expr, int32_dtype, max_lanes_i32, splat
from .key_shadow import KeyShadow
from .packed_votes import PackedVotes
from .plan_table import PlanTable
from .pooling import DISTANCES
from .quantized_rows import QuantizedRows
from .requantize import requantize_lanes
from .vote_rows import VoteRows
from .vote_weights import row_inverse, unsigned_sum

_PADDING = -(1 << 14)
"""Score of the padding of a row: it weighs what the table's last distance does."""


class TableVotes(VoteRows):
    """For any target: weights by a table of 256, an element at a time where gathers are missing.

    Parameters
    ----------
    importance : (any, padded keys) int32, of which row `slot` is filled.
    """

    def __init__(
        self,
        features: CpuFeatures,
        keys: KeyShadow,
        plan: PlanTable,
        importance: T.Buffer,
        slot: Expr,
    ) -> None:
        super().__init__(features, keys, plan, importance, slot)
        self.num_vectors = T.bind(self.padded_keys // self.lanes)
        self.weights = T.alloc_buffer((self.padded_keys,), "int32")
        self.table = T.alloc_buffer((DISTANCES,), "int32")

    @T.inline
    def set_head(self, head: Expr, column: Expr) -> None:
        """The rows that follow are of a head; `column` of the plan's tables."""
        self.multiplier[0] = self.plan.multipliers[head, column]
        self.shift[0] = self.plan.shifts[head, column]
        self.factors.set_step(self.plan.steps[head, column])
        for distance in range(DISTANCES):
            self.table[distance] = self.factors.weight(distance)

    @T.inline
    def put(self, pilot: QuantizedRows, sums: T.Buffer, tile: Expr) -> None:
        for q in T.unroll(self.dot.register_queries):
            for b in T.unroll(self.dot.register_blocks):
                self.scores[
                    q,
                    T.ramp(tile * self.dot.register_keys + b * self.dot.lanes, 1, self.dot.lanes),
                ] = T.Cast(
                    f"int16x{self.dot.lanes}",
                    requantize_lanes(
                        sums[pilot.cell(q, b)],
                        self.multiplier[0],
                        self.shift[0],
                        self.score_max,
                        self.dot.lanes,
                    ),
                )

    @T.inline
    def add(self, row: Expr) -> None:
        """importance += the probabilities of a query of the register tile."""
        most = T.alloc_buffer((self.lanes,), "int32")
        total = T.alloc_buffer((self.lanes,), "int32")
        for pad in range(self.padded_keys - self.keys.num_keys):
            self.scores[row, self.keys.num_keys + pad] = T.int16(_PADDING)
        most[self.ints(0)] = splat(T.int32(_PADDING), self.lanes)
        total[self.ints(0)] = splat(T.int32(0), self.lanes)
        for v in range(self.num_vectors):
            most[self.ints(0)] = T.max(most[self.ints(0)], self.score(row, v))
        largest = T.bind(max_lanes_i32(most[self.ints(0)], self.lanes))
        for v in range(self.num_vectors):
            distance = T.bind(
                T.min(
                    splat(largest, self.lanes) - self.score(row, v),
                    splat(T.int32(DISTANCES - 1), self.lanes),
                )
            )
            self.weights[self.ints(v)] = self.table[distance]
            total[self.ints(0)] = total[self.ints(0)] + self.weights[self.ints(v)]
        weight_sum = T.bind(
            unsigned_sum(total[self.ints(0)], self.lanes)
            - T.Cast("int64", self.padded_keys - self.keys.num_keys) * self.factors.last_weight()
        )
        inverse, shift = row_inverse(weight_sum)
        for v in range(self.num_vectors):
            probabilities = T.bind(
                T.shift_right(
                    self.weights[self.ints(v)] * splat(inverse, self.lanes),
                    splat(shift, self.lanes),
                )
            )
            self.importance[self.slot, self.ints(v)] = (
                self.importance[self.slot, self.ints(v)] + probabilities
            )

    def score(self, row: Expr, index: Expr) -> Expr:
        """A vector of scores."""
        return T.Cast(int32_dtype(self.lanes), self.scores[row, self.ints(index)])


_VOTES: dict[Int8Dot, Callable[[CpuFeatures, KeyShadow, PlanTable, T.Buffer, Expr], Any]] = {
    "widening": TableVotes,
    "pmaddwd": PackedVotes,
    "vnni": PackedVotes,
    "dotprod": TableVotes,
    "i8mm": TableVotes,
}
"""By the INT8 dot product: who has one of x86's has its other integer instructions too."""


def votes_of_rows(
    features: CpuFeatures, keys: KeyShadow, plan: PlanTable, importance: T.Buffer, slot: Expr
) -> Any:
    """The way of a vector unit, a `ScoreSink`; made inside a task::

    votes.clear()
    for each head:
        votes.set_head(head, column)
        for each register tile of queries:
            ...  # hand its scores to votes
            for each query of the tile:
                votes.add(query)
    votes.close()  # row `slot` of importance (any, padded keys) int32 is ready
    """
    return _VOTES[features.int8_dot](features, keys, plan, importance, slot)
