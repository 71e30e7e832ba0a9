"""The pilot's scores for a few queries of one head, as rows of INT32 or straight to a sink."""

from __future__ import annotations

from math import lcm

from tvm.script import tirx as T

from ..constants import MASKED_SCORE
from ..features import CpuFeatures
from ..simd.vector import Expr, splat
from ..spec import ShadowSpec
from .int8_dot import int8_dot_method
from .key_shadow import KeyShadow
from .pilot_rows import PilotRow
from .plan_table import PlanTable
from .quantized_rows import ScoreSink
from .requantize import half_unit, requantize_lanes
from .scores import PilotQueries, RowSink
from .top_k import row_multiple


def padded_keys(keys: KeyShadow, features: CpuFeatures) -> Expr:
    """The length of a row of scores: whole register tiles, and whole steps of what reads them."""
    row_keys = lcm(keys.dot.register_keys, row_multiple(features))
    return T.ceildiv(keys.num_keys, row_keys) * row_keys


@T.meta_class
class ScoreRows:
    """Quantizes and scores a register tile of queries, inside a task.

    Attributes
    ----------
    register_queries : queries taken at a time.
    """

    def __init__(
        self, spec: ShadowSpec, features: CpuFeatures, keys: KeyShadow, plan: PlanTable
    ) -> None:
        dot = int8_dot_method(features, spec.pilot.quant_max)
        self.num_q_heads = spec.attention.num_q_heads
        self.group_size = spec.attention.group_size
        self.keys = keys
        self.plan = plan
        self.register_queries = dot.register_queries
        view = PilotRow(
            spec.attention.head_dim,
            features.lanes,
            centered=False,  # a mean taken from queries would change the order
            rotated=spec.pilot.hadamard_rotation,
        )
        self.pilot = PilotQueries(spec.attention.head_dim, dot, view, spec.pilot.quant_max)

    def column(self, q_buckets: T.Buffer, head: Expr) -> Expr:
        """The plan's column of a head's bucket pair; q_buckets (Hq,)."""
        return self.plan.pair(q_buckets[head], self.keys.buckets[head // self.group_size])

    @T.inline
    def fill(
        self,
        q_rows: T.Buffer,
        q_buckets: T.Buffer,
        head: Expr,
        first_query: Expr,
        num_queries: Expr,
        sink: ScoreSink,
    ) -> None:
        """Hand to `sink` the scores of the `register_queries` queries from `first_query` on, of
        which there are `num_queries` (the last one is repeated). q_rows (tokens * Hq, D)."""
        q_scale = T.bind(self.plan.q_scales[head, q_buckets[head]])
        for i in range(self.register_queries):
            query = T.bind(first_query + T.min(i, num_queries - 1))
            self.pilot.quantize(q_rows, query * self.num_q_heads + head, q_scale, i)
        self.pilot.score(
            self.keys.packed,
            head // self.group_size * self.keys.num_blocks,
            self.keys.num_tiles,
            sink,
        )


@T.meta_class
class IntegerRows:
    """Rows for top-k: INT32 scores, requantized if the plan says so. Scores arrive by `sink`.

    Attributes
    ----------
    scores : (register_queries, padded keys) int32; after `finish`, padding is MASKED_SCORE.
    """

    def __init__(
        self, spec: ShadowSpec, features: CpuFeatures, keys: KeyShadow, plan: PlanTable
    ) -> None:
        self.requantize = spec.pilot.requantize
        self.score_max = spec.pilot.score_max
        self.keys = keys
        self.plan = plan
        self.lanes = features.lanes
        self.padded_keys = T.bind(padded_keys(keys, features))
        self.scores = T.alloc_buffer((keys.dot.register_queries, self.padded_keys), "int32")
        self.sink = RowSink(self.scores, 0, keys.dot)

    @T.inline
    def finish(self, head: Expr, column: Expr, num_queries: Expr) -> None:
        """Requantize and mask the rows of `num_queries` queries; `column` of the plan's tables."""
        if self.requantize:
            multiplier = T.bind(self.plan.multipliers[head, column])
            shift = T.bind(self.plan.shifts[head, column])
            half = T.bind(half_unit(shift))
            for i in range(num_queries):
                for v in range(self.keys.num_tiles * self.keys.dot.register_keys // self.lanes):
                    self.scores[i, T.ramp(v * self.lanes, 1, self.lanes)] = requantize_lanes(
                        self.scores[i, T.ramp(v * self.lanes, 1, self.lanes)]
                        + splat(half, self.lanes),
                        multiplier,
                        shift,
                        self.score_max,
                        self.lanes,
                    )
        for i in range(num_queries):
            for pad in range(self.padded_keys - self.keys.num_keys):
                self.scores[i, self.keys.num_keys + pad] = T.int32(MASKED_SCORE)
