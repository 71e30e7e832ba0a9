"""NPU-Full's task: a tile of queries of one head, from INT8 scores to output."""

from __future__ import annotations

from tvm.script import tirx as T

from ..constants import EMPTY_LSE, LOG2_E, MASKED_SCORE, PROBABILITY_LEVELS
from ..features import CpuFeatures
from ..pilot.key_shadow import KeyShadow
from ..pilot.plan_table import PlanTable
from ..pilot.score_rows import IntegerRows, ScoreRows
from ..simd.vector import (
    Expr,
    const_f32,
    exp2,
    float32_dtype,
    int32_dtype,
    max_lanes_i32,
    splat,
    sum_lanes,
)
from ..spec import ShadowSpec, StaticInt8Spec
from .static_values import LevelRows, OutputSink, PackedValues


@T.meta_class
class StaticScales:
    """One layer's factors, made and loaded inside the PrimFunc.

    Attributes
    ----------
    factors : (3,) float32: units of V; octaves per unit of score; output per unit of level and V.
    """

    def __init__(self, spec: StaticInt8Spec) -> None:
        self.spec = spec
        self.factors = T.alloc_buffer((3,), "float32")

    @property
    def value(self) -> Expr:
        return self.factors[0]

    @property
    def octaves(self) -> Expr:
        return self.factors[1]

    @property
    def output(self) -> Expr:
        return self.factors[2]

    def load(self, layer: Expr) -> None:
        """Plain Python, run while the kernel is parsed."""
        for index, v_scale in enumerate(self.spec.v_scales):
            factors = (
                v_scale,
                self.spec.score_scale(index) * LOG2_E,
                v_scale / PROBABILITY_LEVELS,
            )
            with T.If(layer == index), T.Then():
                for place, factor in enumerate(factors):
                    T.buffer_store(self.factors, T.float32(factor), [place])


@T.meta_class
class StaticTask:
    """Made inside the task."""

    def __init__(
        self,
        spec: ShadowSpec,
        features: CpuFeatures,
        keys: KeyShadow,
        values: PackedValues,
        plan: PlanTable,
        scales: StaticScales,
    ) -> None:
        self.group_size = spec.attention.group_size
        self.lanes = features.lanes
        self.values = values
        self.scales = scales
        self.padded_keys = values.padded_keys
        self.queries = ScoreRows(spec, features, keys, plan)
        self.rows = IntegerRows(spec, features, keys, plan)
        self.levels = LevelRows(features, values.padded_keys)
        self.weights = T.alloc_buffer((values.padded_keys,), "float32")
        self.largest = T.alloc_buffer((features.lanes,), "int32")
        self.total = T.alloc_buffer((features.lanes,), "float32")

    def vector(self, index: Expr) -> Expr:
        """The positions of the `index`-th vector."""
        return T.ramp(index * self.lanes, 1, self.lanes)

    @T.inline
    def run(
        self,
        q_rows: T.Buffer,
        q_buckets: T.Buffer,
        head: Expr,
        first_query: Expr,
        num_queries: Expr,
        first_limit: Expr,
        limit_step: Expr,
        output: T.Buffer,
        lse: T.Buffer,
    ) -> None:
        """`output` (tokens, Hq, D) and `lse` (tokens, Hq) of the queries: query i sees the first
        `first_limit + i * limit_step` keys. q_rows (tokens * Hq, D), q_buckets (Hq,) zeros."""
        kv_head = T.bind(head // self.group_size)
        for group in range(T.ceildiv(num_queries, self.queries.register_queries)):
            first = T.bind(group * self.queries.register_queries)
            filled = T.bind(T.min(self.queries.register_queries, num_queries - first))
            self.queries.fill(q_rows, q_buckets, head, first_query + first, filled, 1, self.rows)
            for i in range(filled):
                limit = T.bind(first_limit + (first + i) * limit_step)
                self.normalize(i, limit, lse, first_query + first + i, head)
            sink = OutputSink(
                self.values,
                self.levels.offset,
                kv_head,
                head,
                first_query + first,
                filled,
                output,
                self.scales.output,
            )
            self.levels.score(
                self.values.packed,
                kv_head * self.values.num_blocks,
                self.values.num_tiles,
                sink,
            )

    @T.inline
    def normalize(self, i: Expr, limit: Expr, lse: T.Buffer, query: Expr, head: Expr) -> None:
        """Levels of row i, of which `limit` keys are visible, and its lse; all zero if none is."""
        visible = T.bind(T.max(limit, 0))
        num_vectors = T.bind(self.padded_keys // self.lanes)
        for pad in range(self.padded_keys - visible):
            self.rows.scores[i, visible + pad] = T.int32(MASKED_SCORE)
        self.largest[self.vector(0)] = splat(T.int32(MASKED_SCORE), self.lanes)
        self.total[self.vector(0)] = const_f32(0.0, self.lanes)
        for v in range(num_vectors):
            self.largest[self.vector(0)] = T.max(
                self.largest[self.vector(0)], self.rows.scores[i, self.vector(v)]
            )
        most = T.bind(T.Cast("float32", max_lanes_i32(self.largest[self.vector(0)], self.lanes)))
        for v in range(num_vectors):
            # in float, where the distance of a masked score doesn't wrap around
            distance = T.meta_var(
                T.Cast(float32_dtype(self.lanes), self.rows.scores[i, self.vector(v)])
                - splat(most, self.lanes)
            )
            self.weights[self.vector(v)] = exp2(
                distance * splat(self.scales.octaves, self.lanes), self.lanes
            )
            self.total[self.vector(0)] = self.total[self.vector(0)] + self.weights[self.vector(v)]
        total = T.bind(sum_lanes(self.total[self.vector(0)], self.lanes))
        per_weight = T.bind(
            T.if_then_else(visible > 0, T.float32(PROBABILITY_LEVELS) / total, T.float32(0))
        )
        self.levels.start_row()
        for v in range(num_vectors):
            level = T.meta_var(
                T.nearbyint(self.weights[self.vector(v)] * splat(per_weight, self.lanes))
            )
            self.levels.put_levels(i, v * self.lanes, T.Cast(int32_dtype(self.lanes), level))
        self.levels.finish_row(i)
        lse[query, head] = T.if_then_else(
            visible > 0, most * self.scales.octaves + T.log2(total), T.float32(EMPTY_LSE)
        )
