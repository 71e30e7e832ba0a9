"""The votes of one list's rows: INT8 scores in, one importance per key out, inside a task.

What is computed is in `pooling`, to the bit; here are the ways to compute it, by vector unit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm.script import tirx as T

from ..constants import MASKED_SCORE
from ..features import CpuFeatures, Int8Dot
from ..simd.vector import Expr, int32_dtype, max_lanes_i32, splat, sum_lanes_i32
from .key_shadow import KeyShadow
from .packed_votes import PackedVotes
from .plan_table import PlanTable
from .pooling import DISTANCES
from .requantize import half_unit, requantize_lanes
from .score_rows import padded_keys
from .scores import PilotQueries
from .vote_weights import WeightTables, row_inverse

_PADDING = -(1 << 14)
"""Score of the padding of a row: further from any maximum than the table reaches."""


@T.meta_class
class TableVotes:
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
        self.lanes = features.lanes
        self.keys = keys
        self.plan = plan
        self.dot = keys.dot
        self.padded_keys = T.bind(padded_keys(keys, features))
        self.num_vectors = T.bind(self.padded_keys // self.lanes)
        self.importance = importance
        self.slot = slot
        self.scores = T.alloc_buffer((self.dot.register_queries, self.padded_keys), "int16")
        self.weights = T.alloc_buffer((self.padded_keys,), "int32")
        self.table = T.alloc_buffer((DISTANCES,), "int32")
        self.factors = WeightTables()
        self.multiplier = T.alloc_buffer((1,), "int32")
        self.shift = T.alloc_buffer((1,), "int32")

    def vector(self, index: Expr) -> Expr:
        """The positions of the `index`-th vector."""
        return T.ramp(index * self.lanes, 1, self.lanes)

    def start(self, query: Expr) -> Expr:
        return half_unit(self.shift[0])

    @T.inline
    def clear(self) -> None:
        """No votes yet; once, before all else."""
        self.factors.start()
        for v in range(self.num_vectors):
            self.importance[self.slot, self.vector(v)] = splat(T.int32(0), self.lanes)

    @T.inline
    def set_head(self, head: Expr, column: Expr) -> None:
        """The rows that follow are of a head; `column` of the plan's tables."""
        self.multiplier[0] = self.plan.multipliers[head, column]
        self.shift[0] = self.plan.shifts[head, column]
        self.factors.set_step(self.plan.steps[head, column])
        for distance in range(DISTANCES - 1):
            self.table[distance] = self.factors.weight(distance)
        self.table[DISTANCES - 1] = 0  # what isn't there

    @T.inline
    def put(self, pilot: PilotQueries, sums: T.Buffer, tile: Expr) -> None:
        for q in T.unroll(self.dot.register_queries):
            for b in T.unroll(self.dot.register_blocks):
                self.scores[
                    q,
                    T.ramp(tile * self.dot.register_keys + b * self.dot.lanes, 1, self.dot.lanes),
                ] = T.Cast(
                    f"int16x{self.dot.lanes}",
                    requantize_lanes(
                        sums[pilot.cell(q, b)], self.multiplier[0], self.shift[0], self.dot.lanes
                    ),
                )

    @T.inline
    def add(self, row: Expr) -> None:
        """importance += the probabilities of a query of the register tile."""
        most = T.alloc_buffer((self.lanes,), "int32")
        total = T.alloc_buffer((self.lanes,), "int32")
        for pad in range(self.padded_keys - self.keys.num_keys):
            self.scores[row, self.keys.num_keys + pad] = T.int16(_PADDING)
        most[self.vector(0)] = splat(T.int32(_PADDING), self.lanes)
        total[self.vector(0)] = splat(T.int32(0), self.lanes)
        for v in range(self.num_vectors):
            most[self.vector(0)] = T.max(most[self.vector(0)], self.score(row, v))
        largest = T.bind(max_lanes_i32(most[self.vector(0)], self.lanes))
        for v in range(self.num_vectors):
            distance = T.bind(
                T.min(
                    splat(largest, self.lanes) - self.score(row, v),
                    splat(T.int32(DISTANCES - 1), self.lanes),
                )
            )
            self.weights[self.vector(v)] = self.table[distance]
            total[self.vector(0)] = total[self.vector(0)] + self.weights[self.vector(v)]
        weight_sum = T.bind(sum_lanes_i32(total[self.vector(0)], self.lanes))
        inverse, shift = row_inverse(weight_sum)
        for v in range(self.num_vectors):
            probabilities = T.bind(
                T.shift_right(
                    self.weights[self.vector(v)] * splat(inverse, self.lanes),
                    splat(shift, self.lanes),
                )
            )
            self.importance[self.slot, self.vector(v)] = (
                self.importance[self.slot, self.vector(v)] + probabilities
            )

    def score(self, row: Expr, index: Expr) -> Expr:
        """A vector of scores."""
        return T.Cast(int32_dtype(self.lanes), self.scores[row, self.vector(index)])

    @T.inline
    def close(self) -> None:
        """Mask the padding: `importance` is ready for top-k."""
        for pad in range(self.padded_keys - self.keys.num_keys):
            self.importance[self.slot, self.keys.num_keys + pad] = T.int32(MASKED_SCORE)


_VOTES: dict[Int8Dot, Callable[[CpuFeatures, KeyShadow, PlanTable, T.Buffer, Expr], Any]] = {
    "widening": TableVotes,
    "pmaddwd": PackedVotes,
    "vnni": PackedVotes,
    "dotprod": TableVotes,
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
