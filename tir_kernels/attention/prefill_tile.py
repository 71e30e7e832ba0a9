"""One tile of queries of one head against keys named by a row table: exact, online softmax.

The computation every CPU prefill kernel shares. It knows neither pages nor sequences: keys and
values are rows of two row-major views `[rows, head_dim]`, and the caller lists, block by block,
which rows to attend to. Pages, ragged chunks and gathered selections differ only in that list.

Layout: queries in lanes. Q and the output are held transposed, `[head_dim, queries]`, so that a
key's elements are broadcast and nothing is summed across lanes.

Source: the online softmax of FlashAttention (Dao et al., 2022); base-2 exponentials and lse as in
TVM's paged KV cache.
"""

from __future__ import annotations

from typing import Any

from tvm.script import tirx as T

from ..simd.storage import as_float32
from ..simd.vector import const_f32, exp2, splat
from ..spec import AttentionSpec
from .tile_rows import UNSEEN_SCORE, TileRows
from .tiles import AttentionTile

Expr = Any  # a TIR expression; TVM ships no types


@T.meta_class
class PrefillTile(TileRows):
    """The state and the steps of one query tile. Make one per task, inside the PrimFunc::

        tile = PrefillTile(spec, sizes)
        tile.start(q, head, first_query, num_queries)
        ...  # fill tile.limits
        for each block of at most sizes.key_block keys:
            ...  # fill tile.rows
            tile.attend(k_rows, v_rows, value_offset, first_key, num_keys, num_queries)
        tile.finish(output, lse, num_queries)

    Every query that sees any key must see the first one, key 0.

    Attributes
    ----------
    limits : see `TileRows`. They must not decrease from one query to the next, so that a strip may
        skip what its last query doesn't see; those of padding queries may be anything.
    rows : (padded_key_block,) int32, the caller's: the row of each key of the block. The entries
        from `num_keys` up to the next multiple of `register_rows` must name readable rows; what
        those hold (even NaN) is ignored.
    shrink : (strip_queries,) float32, what the last block rescaled the past by.
    weights : (padded_key_block, strip_queries) float32, one strip's scores, then weights.
    k_block, v_block : (padded_key_block, head_dim) float32, the block's rows where float16 is
        stored: converted once for all strips.
    """

    def __init__(self, spec: AttentionSpec, sizes: AttentionTile) -> None:
        super().__init__(spec, sizes)
        self.widened = spec.dtype != "float32"
        self.vectors = sizes.query_vectors
        self.group = sizes.register_rows
        self.accumulators = sizes.register_rows * sizes.query_vectors * sizes.lanes
        padded, strip = sizes.padded_key_block, sizes.strip_queries
        self.shrink = T.alloc_buffer((strip,), "float32")
        self.weights = T.alloc_buffer((padded, strip), "float32")
        self.rows = T.alloc_buffer((padded,), "int32")
        if self.widened:
            self.k_block = T.alloc_buffer((padded, spec.head_dim), "float32")
            self.v_block = T.alloc_buffer((padded, spec.head_dim), "float32")

    def cell(self, row: Expr, query_vector: Expr) -> Expr:
        """The element indices of one accumulator of a register tile."""
        return self.vector(row * self.vectors + query_vector)

    @T.inline
    def attend(
        self,
        k_rows: T.Buffer,
        v_rows: T.Buffer,
        value_offset: Expr,
        first_key: Expr,
        num_keys: Expr,
        num_queries: Expr,
    ) -> None:
        """Add keys `first_key : first_key + num_keys`, 1 <= num_keys <= key_block.

        Key `first_key + i` has K in `k_rows[rows[i]]`, V in `v_rows[rows[i] + value_offset]`; both
        (rows, D), possibly the same buffer. Queries with `limits[m] <= key` don't see it.
        """
        if self.widened:
            self.widen(k_rows, v_rows, value_offset, num_keys)
            self.attend_rows(self.k_block, self.v_block, 0, first_key, num_keys, num_queries)
        else:
            self.attend_rows(k_rows, v_rows, value_offset, first_key, num_keys, num_queries)

    @T.inline
    def widen(self, k_rows: T.Buffer, v_rows: T.Buffer, value_offset: Expr, num_keys: Expr) -> None:
        """k_block, v_block = the block's rows in float32, whole register tiles of them."""
        for i in range(T.ceildiv(num_keys, self.group) * self.group):
            for v in range(self.dims // self.lanes):
                self.k_block[i, self.vector(v)] = as_float32(k_rows[self.rows[i], self.vector(v)])
                self.v_block[i, self.vector(v)] = as_float32(
                    v_rows[self.rows[i] + value_offset, self.vector(v)]
                )

    def row(self, key: Expr) -> Expr:
        """Where a key of the block has its row."""
        return key if self.widened else self.rows[key]

    @T.inline
    def attend_rows(
        self,
        k_rows: T.Buffer,
        v_rows: T.Buffer,
        value_offset: Expr,
        first_key: Expr,
        num_keys: Expr,
        num_queries: Expr,
    ) -> None:
        """`attend`, with `row` of each key in float32 `k_rows` and `v_rows`."""
        for strip in range(T.ceildiv(num_queries, self.sizes.strip_queries)):
            base = T.bind(strip * self.sizes.strip_queries)
            last = T.bind(T.min(base + self.sizes.strip_queries, num_queries) - 1)
            seen = T.bind(T.min(self.limits[last] - first_key, num_keys))
            if seen > 0:
                self.score(k_rows, first_key, seen, base)
                self.weigh(seen, base)
                for group in range(self.dims // self.group):
                    self.sum_values(
                        v_rows, value_offset, seen, base, group * self.group, self.group
                    )
                if self.dims % self.group > 0:
                    self.sum_values(
                        v_rows,
                        value_offset,
                        seen,
                        base,
                        self.dims - self.dims % self.group,
                        self.dims % self.group,
                    )

    @T.inline
    def score(self, k_rows: T.Buffer, first_key: Expr, num_keys: Expr, base: Expr) -> None:
        """weights = q.k, or UNSEEN_SCORE; shrink = the old maximum, row_max = the new one."""
        for v in T.unroll(self.vectors):
            self.shrink[self.vector(v)] = self.row_max[self.vector(v, base)]
        for group in range(T.ceildiv(num_keys, self.group)):
            acc = T.alloc_buffer((self.accumulators,), "float32")
            for i in T.unroll(self.group * self.vectors):
                acc[self.vector(i)] = const_f32(0.0, self.lanes)
            for d in range(self.dims):
                for r in T.unroll(self.group):
                    for v in T.unroll(self.vectors):
                        acc[self.cell(r, v)] = acc[self.cell(r, v)] + self.q_t[
                            d, self.vector(v, base)
                        ] * splat(k_rows[self.row(group * self.group + r), d], self.lanes)
            for r in T.unroll(self.group):
                key = T.bind(group * self.group + r)
                for v in T.unroll(self.vectors):
                    self.weights[key, self.vector(v)] = T.Select(
                        splat(first_key + key, self.lanes) < self.limits[self.vector(v, base)],
                        acc[self.cell(r, v)],
                        const_f32(UNSEEN_SCORE, self.lanes),
                    )
                    self.row_max[self.vector(v, base)] = T.max(
                        self.row_max[self.vector(v, base)], self.weights[key, self.vector(v)]
                    )

    @T.inline
    def weigh(self, num_keys: Expr, base: Expr) -> None:
        """weights = 2^(score - row_max), added to row_sum; shrink = 2^(old - new maximum)."""
        for v in T.unroll(self.vectors):
            self.shrink[self.vector(v)] = exp2(
                self.shrink[self.vector(v)] - self.row_max[self.vector(v, base)], self.lanes
            )
            self.row_sum[self.vector(v, base)] = (
                self.row_sum[self.vector(v, base)] * self.shrink[self.vector(v)]
            )
        for key in range(num_keys):
            for v in T.unroll(self.vectors):
                self.weights[key, self.vector(v)] = exp2(
                    self.weights[key, self.vector(v)] - self.row_max[self.vector(v, base)],
                    self.lanes,
                )
                self.row_sum[self.vector(v, base)] = (
                    self.row_sum[self.vector(v, base)] + self.weights[key, self.vector(v)]
                )

    @T.inline
    def sum_values(
        self,
        v_rows: T.Buffer,
        value_offset: Expr,
        num_keys: Expr,
        base: Expr,
        first_dim: Expr,
        group_dims: int,
    ) -> None:
        """o_t = o_t * shrink + weights.V, for `group_dims` dimensions from `first_dim` on."""
        acc = T.alloc_buffer((self.accumulators,), "float32")
        for r in T.unroll(group_dims):
            for v in T.unroll(self.vectors):
                acc[self.cell(r, v)] = (
                    self.o_t[first_dim + r, self.vector(v, base)] * self.shrink[self.vector(v)]
                )
        for key in range(num_keys):
            for r in T.unroll(group_dims):
                for v in T.unroll(self.vectors):
                    acc[self.cell(r, v)] = acc[self.cell(r, v)] + self.weights[
                        key, self.vector(v)
                    ] * splat(v_rows[self.row(key) + value_offset, first_dim + r], self.lanes)
        for r in T.unroll(group_dims):
            for v in T.unroll(self.vectors):
                self.o_t[first_dim + r, self.vector(v, base)] = acc[self.cell(r, v)]
