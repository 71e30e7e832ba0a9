"""What all ways to count votes share: a list's importance, a head's requantization, the padding."""

from __future__ import annotations

from tvm.script import tirx as T

from ..constants import MASKED_SCORE
from ..features import CpuFeatures
from ..simd.vector import Expr, splat
from .key_shadow import KeyShadow
from .plan_table import PlanTable
from .requantize import half_unit
from .score_rows import padded_keys
from .vote_weights import WeightTables


@T.meta_class
class VoteRows:
    """Base of the ways (see `votes.votes_of_rows`), made inside a task.

    Parameters
    ----------
    importance : (any, padded keys) int32, of which row `slot` is filled.

    Attributes
    ----------
    scores : (register_queries, padded keys) int16, requantized scores of a register tile.
    multiplier, shift : (1,) int32, the requantization of the rows that follow.
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
        self.score_max = keys.plan.pilot.score_max
        self.keys = keys
        self.plan = plan
        self.dot = keys.dot
        self.padded_keys = T.bind(padded_keys(keys, features))
        self.importance = importance
        self.slot = slot
        self.scores = T.alloc_buffer((self.dot.register_queries, self.padded_keys), "int16")
        self.factors = WeightTables()
        self.multiplier = T.alloc_buffer((1,), "int32")
        self.shift = T.alloc_buffer((1,), "int32")

    def ints(self, index: Expr) -> Expr:
        """The positions of the `index`-th vector of 32-bit elements."""
        return T.ramp(index * self.lanes, 1, self.lanes)

    def start(self, query: Expr) -> Expr:
        return half_unit(self.shift[0])

    @T.inline
    def clear(self) -> None:
        """No votes yet; once, before all else."""
        self.factors.start()
        for v in range(self.padded_keys // self.lanes):
            self.importance[self.slot, self.ints(v)] = splat(T.int32(0), self.lanes)

    @T.inline
    def close(self) -> None:
        """Mask the padding: `importance` is ready for top-k."""
        for pad in range(self.padded_keys - self.keys.num_keys):
            self.importance[self.slot, self.keys.num_keys + pad] = T.int32(MASKED_SCORE)
