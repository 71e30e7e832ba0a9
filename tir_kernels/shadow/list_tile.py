"""Exact attention of many rows over one shared list of keys.

A shared list brings register blocking back: rows lie in lanes, as in dense prefill, and the tile
walks through the list instead of the pages.
"""

from __future__ import annotations

from tvm.script import tirx as T

from ..attention.prefill_tile import PrefillTile
from ..head_rest import HeadRest
from ..simd.prefetch import prefetch_row
from ..simd.vector import Expr, const_f32, splat


class ListTile(PrefillTile):
    """A `PrefillTile` whose keys are a list and whose rows may be of several heads."""

    @T.inline
    def run(
        self,
        q: T.Buffer,
        cache_rows: T.Buffer,
        row_table: T.Buffer,
        key_offset: Expr,
        value_offset: Expr,
        indices: T.Buffer,
        slot: Expr,
        count: Expr,
        first_head: Expr,
        num_heads: Expr,
        first_query: Expr,
        num_queries: Expr,
        output: T.Buffer,
        lse: T.Buffer,
        rest: HeadRest | None = None,
    ) -> None:
        """Every query of every head over keys `indices[slot, : count]`, start to finish.

        `q`, `output` (tokens, Hq, D), `lse` (tokens, Hq); key j has K in
        `cache_rows[row_table[j] + key_offset]` and V `value_offset` rows further on.
        With `rest`, and over what it stands for.
        """
        num_rows = T.bind(num_heads * num_queries)
        for tile in range(T.ceildiv(num_rows, self.sizes.queries)):
            first = T.bind(tile * self.sizes.queries)
            tile_rows = T.bind(T.min(self.sizes.queries, num_rows - first))
            for m in range(self.sizes.queries):
                row = T.bind(first + T.min(m, tile_rows - 1))
                self.row_head[m] = first_head + row // num_queries
                self.row_query[m] = first_query + row % num_queries
                self.limits[m] = count
            self.load(q)
            if rest is not None:
                if rest.left_out > 0:
                    self.begin_with(rest)
            for block in range(T.ceildiv(count, self.sizes.key_block)):
                first_key = T.bind(block * self.sizes.key_block)
                block_keys = T.bind(T.min(self.sizes.key_block, count - first_key))
                for i in range(self.sizes.padded_key_block):
                    self.rows[i] = (
                        row_table[indices[slot, first_key + T.min(i, block_keys - 1)]] + key_offset
                    )
                    # by the time they are needed: this block's values, the next one's keys
                    prefetch_row(cache_rows, self.rows[i] + value_offset, self.dims)
                    ahead = T.bind(T.min(first_key + self.sizes.key_block + i, count - 1))
                    prefetch_row(
                        cache_rows, row_table[indices[slot, ahead]] + key_offset, self.dims
                    )
                self.attend(cache_rows, cache_rows, value_offset, first_key, block_keys, tile_rows)
            self.finish(output, lse, tile_rows)

    @T.inline
    def begin_with(self, rest: HeadRest) -> None:
        """The softmax's state after the rest, before the list."""
        weight = T.bind(T.log2(T.Cast("float32", rest.left_out)))
        for v in range(self.sizes.queries // self.lanes):
            score = T.alloc_buffer((self.lanes,), "float32")
            score[self.vector(0)] = splat(weight, self.lanes)
            for d in range(self.dims):
                key = T.bind(splat(rest.means[rest.key, d], self.lanes))
                score[self.vector(0)] = score[self.vector(0)] + self.q_t[d, self.vector(v)] * key
                self.o_t[d, self.vector(v)] = splat(rest.means[rest.value, d], self.lanes)
            self.row_max[self.vector(v)] = score[self.vector(0)]
            self.row_sum[self.vector(v)] = const_f32(1.0, self.lanes)
