"""One query of each head that shares a KV head, against one split of keys named by a row table.

The decode counterpart of `prefill_tile`: with one query per head there is nothing to transpose, so
lanes run along the head dimension, and the heads of a GQA group read each K and V row once,
together. A split is attended to in one go; splits are added up by the caller.

Source: Flash-Decoding's split over keys; base-2 exponentials and lse as in TVM's paged KV cache.
"""

from __future__ import annotations

from typing import Any

from tvm.script import tirx as T

from ..constants import LOG2_E
from ..simd.prefetch import prefetch_row
from ..simd.storage import as_float32
from ..simd.vector import const_f32, exp2, max_lanes, splat, sum_lanes
from ..spec import AttentionSpec
from .tile_rows import UNSEEN_SCORE
from .tiles import DecodeTile

Expr = Any  # a TIR expression; TVM ships no types


@T.meta_class
class DecodeGroup:
    """The state and the steps of one group and one split; g = group size. Inside the PrimFunc::

        group = DecodeGroup(spec, sizes)
        ...  # fill group.rows
        group.run(q, sequence, kv_head, k_rows, v_rows, value_offset, num_keys)
        # group.o, group.row_max, group.row_sum hold the result

    Attributes
    ----------
    rows : (row_table,) int32, the caller's: the row of each key. All entries from `num_keys` on
        must name readable rows; what those hold (even NaN) is ignored.
    q : (g, D) float32, queries times sm_scale * log2(e).
    o : (g, D) float32, the weighted sum of the values, not divided by `row_sum`.
    row_max, row_sum : (g,) float32, largest base-2 score and sum of weights.
    weights : (g, split_keys) float32, scores, then weights.
    """

    def __init__(self, spec: AttentionSpec, sizes: DecodeTile) -> None:
        self.spec = spec
        self.sizes = sizes
        self.lanes = sizes.lanes
        self.heads = sizes.heads
        self.dim_vectors = spec.head_dim // sizes.lanes
        self.q_scale = spec.sm_scale * LOG2_E
        g, d = spec.group_size, spec.head_dim
        self.rows = T.alloc_buffer((sizes.row_table,), "int32")
        self.q = T.alloc_buffer((g, d), "float32")
        self.o = T.alloc_buffer((g, d), "float32")
        self.row_max = T.alloc_buffer((g,), "float32")
        self.row_sum = T.alloc_buffer((g,), "float32")
        self.weights = T.alloc_buffer((g, sizes.split_keys), "float32")

    def vector(self, index: Expr) -> Expr:
        """The element indices of one vector."""
        return T.ramp(index * self.lanes, 1, self.lanes)

    @T.inline
    def run(
        self,
        q: T.Buffer,
        sequence: Expr,
        kv_head: Expr,
        k_rows: T.Buffer,
        v_rows: T.Buffer,
        value_offset: Expr,
        num_keys: Expr,
    ) -> None:
        """The group's queries of `q` (batch, Hq, D) against `num_keys` keys, 1 to split_keys: K of
        key i in `k_rows[rows[i]]`, V in `v_rows[rows[i] + value_offset]`; both (rows, D), possibly
        the same buffer."""
        for h in range(self.spec.group_size):
            for v in range(self.dim_vectors):
                self.q[h, self.vector(v)] = as_float32(
                    q[sequence, kv_head * self.spec.group_size + h, self.vector(v)]
                ) * const_f32(self.q_scale, self.lanes)
        for part in range(self.spec.group_size // self.heads):
            self.score(k_rows, v_rows, value_offset, num_keys, part * self.heads)
        for h in range(self.spec.group_size):
            self.weigh(h, num_keys)
        for part in range(self.spec.group_size // self.heads):
            self.sum_values(v_rows, value_offset, num_keys, part * self.heads)

    @T.inline
    def score(
        self,
        k_rows: T.Buffer,
        v_rows: T.Buffer,
        value_offset: Expr,
        num_keys: Expr,
        first_head: Expr,
    ) -> None:
        """weights = q.k of `heads` heads; the values are on their way meanwhile"""
        for step in range(T.ceildiv(num_keys, self.sizes.score_keys)):
            acc = T.alloc_buffer((self.sizes.score_keys * self.heads * self.lanes,), "float32")
            first_key = T.bind(step * self.sizes.score_keys)
            for key in T.unroll(self.sizes.score_keys):
                ahead = T.bind(self.rows[first_key + key + self.sizes.ahead_keys])
                prefetch_row(k_rows, ahead, self.spec.head_dim)
                prefetch_row(v_rows, ahead + value_offset, self.spec.head_dim)
            for i in T.unroll(self.sizes.score_keys * self.heads):
                acc[self.vector(i)] = const_f32(0.0, self.lanes)
            for v in range(self.dim_vectors):
                for key in T.unroll(self.sizes.score_keys):
                    for h in T.unroll(self.heads):
                        acc[self.vector(key * self.heads + h)] = (
                            acc[self.vector(key * self.heads + h)]
                            + as_float32(k_rows[self.rows[first_key + key], self.vector(v)])
                            * self.q[first_head + h, self.vector(v)]
                        )
            for h in T.unroll(self.heads):
                for key in T.unroll(self.sizes.score_keys):
                    self.weights[first_head + h, first_key + key] = sum_lanes(
                        acc[self.vector(key * self.heads + h)], self.lanes
                    )

    @T.inline
    def weigh(self, h: Expr, num_keys: Expr) -> None:
        """row_max; weights = 2^(score - row_max); row_sum"""
        largest = T.alloc_buffer((self.lanes,), "float32")
        total = T.alloc_buffer((self.lanes,), "float32")
        vectors = T.bind(T.ceildiv(num_keys, self.lanes))
        # keys that fill up the last vector count as unseen: 2^-126, which vanishes in the sum
        for i in range(vectors * self.lanes - num_keys):
            self.weights[h, num_keys + i] = T.float32(UNSEEN_SCORE)
        largest[self.vector(0)] = const_f32(UNSEEN_SCORE, self.lanes)
        total[self.vector(0)] = const_f32(0.0, self.lanes)
        for v in range(vectors):
            largest[self.vector(0)] = T.max(
                largest[self.vector(0)], self.weights[h, self.vector(v)]
            )
        self.row_max[h] = max_lanes(largest[self.vector(0)], self.lanes)
        for v in range(vectors):
            self.weights[h, self.vector(v)] = exp2(
                self.weights[h, self.vector(v)] - splat(self.row_max[h], self.lanes), self.lanes
            )
            total[self.vector(0)] = total[self.vector(0)] + self.weights[h, self.vector(v)]
        self.row_sum[h] = sum_lanes(total[self.vector(0)], self.lanes)

    @T.inline
    def sum_values(
        self, v_rows: T.Buffer, value_offset: Expr, num_keys: Expr, first_head: Expr
    ) -> None:
        """o = weights.V of `heads` heads"""
        for part in range(self.dim_vectors // self.sizes.value_vectors):
            acc = T.alloc_buffer((self.heads * self.sizes.value_vectors * self.lanes,), "float32")
            first = T.bind(part * self.sizes.value_vectors)
            for i in T.unroll(self.heads * self.sizes.value_vectors):
                acc[self.vector(i)] = const_f32(0.0, self.lanes)
            for key in range(num_keys):
                # a vector of values serves all heads before the next is loaded: registers suffice
                for v in T.unroll(self.sizes.value_vectors):
                    for h in T.unroll(self.heads):
                        acc[self.vector(h * self.sizes.value_vectors + v)] = acc[
                            self.vector(h * self.sizes.value_vectors + v)
                        ] + as_float32(
                            v_rows[self.rows[key] + value_offset, self.vector(first + v)]
                        ) * splat(self.weights[first_head + h, key], self.lanes)
            for h in T.unroll(self.heads):
                for v in T.unroll(self.sizes.value_vectors):
                    self.o[first_head + h, self.vector(first + v)] = acc[
                        self.vector(h * self.sizes.value_vectors + v)
                    ]
