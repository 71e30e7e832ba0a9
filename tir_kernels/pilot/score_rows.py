"""The pilot's scores for a few queries of one head: INT32, or requantized to INT8."""

from __future__ import annotations

from math import lcm

from tvm.script import tirx as T

from ..features import CpuFeatures
from ..simd.vector import Expr
from ..spec import ShadowSpec
from .int8_dot import int8_dot_method
from .key_shadow import KeyShadow
from .pilot_rows import PilotRow
from .plan_table import PlanTable
from .requantize import pre_shift_bits, requantize_lanes
from .scores import PilotQueries
from .top_k import row_multiple


@T.meta_class
class ScoreRows:
    """One register tile of queries, made inside a task.

    Attributes
    ----------
    scores : (register_queries, padded_keys) int32.
    register_queries : rows filled at a time.
    """

    def __init__(
        self,
        spec: ShadowSpec,
        features: CpuFeatures,
        keys: KeyShadow,
        plan: PlanTable,
        padding: int,
    ) -> None:
        dot = int8_dot_method(features)
        self.num_q_heads = spec.attention.num_q_heads
        self.group_size = spec.attention.group_size
        self.requantize = spec.pilot.requantize
        self.pre_shift = pre_shift_bits(spec.attention.head_dim, spec.pilot.quant_max)
        self.keys = keys
        self.plan = plan
        self.padding = padding
        self.lanes = features.lanes
        self.register_queries = dot.register_queries
        row_keys = lcm(dot.register_keys, row_multiple(features))
        self.padded_keys = T.bind(T.ceildiv(keys.num_keys, row_keys) * row_keys)
        view = PilotRow(
            spec.attention.head_dim,
            features.lanes,
            centered=False,  # a mean taken from queries would change the order
            rotated=spec.pilot.hadamard_rotation,
        )
        self.pilot = PilotQueries(spec.attention.head_dim, dot, view, spec.pilot.quant_max)
        self.scores = T.alloc_buffer((dot.register_queries, self.padded_keys), "int32")

    @T.inline
    def fill(
        self,
        q_rows: T.Buffer,
        q_buckets: T.Buffer,
        head: Expr,
        first_query: Expr,
        num_queries: Expr,
    ) -> None:
        """`scores` of the `register_queries` queries from `first_query` on, of which there are
        `num_queries` (the last one is repeated). q_rows (tokens * Hq, D); q_buckets (Hq,)."""
        kv_head = T.bind(head // self.group_size)
        q_scale = T.bind(self.plan.q_scales[head, q_buckets[head]])
        for i in range(self.register_queries):
            query = T.bind(first_query + T.min(i, num_queries - 1))
            self.pilot.quantize(q_rows, query * self.num_q_heads + head, q_scale, i)
        self.pilot.score(
            self.keys.packed, kv_head * self.keys.num_blocks, self.keys.num_tiles, self.scores, 0
        )
        if self.requantize:
            column = T.bind(self.plan.pair(q_buckets[head], self.keys.buckets[kv_head]))
            multiplier = T.bind(self.plan.multipliers[head, column])
            shift = T.bind(self.plan.shifts[head, column])
            for i in range(T.min(self.register_queries, num_queries)):
                self.requantize_row(i, multiplier, shift)
        for i in range(self.register_queries):
            for pad in range(self.padded_keys - self.keys.num_keys):
                self.scores[i, self.keys.num_keys + pad] = T.int32(self.padding)

    @T.inline
    def requantize_row(self, row: Expr, multiplier: Expr, shift: Expr) -> None:
        """The pilot's whole tiles of keys: the rest of the row is padding."""
        for v in range(self.keys.num_tiles * self.keys.dot.register_keys // self.lanes):
            self.scores[row, T.ramp(v * self.lanes, 1, self.lanes)] = requantize_lanes(
                self.scores[row, T.ramp(v * self.lanes, 1, self.lanes)],
                self.pre_shift,
                multiplier,
                shift,
                self.lanes,
            )
