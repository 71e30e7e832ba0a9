"""Exact float32 scores as rows that the pilot's selector takes: C/G-Sparse's estimate.

Queries lie in lanes, as in dense prefill, so that a key's elements are broadcast; squares of scores
are then transposed into rows of keys, and floats become integers of the same order.
"""

from __future__ import annotations

from math import lcm

from tvm.script import tirx as T

from ..attention.tiles import attention_tile
from ..constants import MASKED_SCORE
from ..features import CpuFeatures
from ..pilot.top_k import row_multiple
from ..simd.shuffle import transpose
from ..simd.storage import as_float32
from ..simd.vector import Expr, const_f32, ordered_bits, splat
from ..spec import AttentionSpec


@T.meta_class
class FloatRows:
    """A strip of queries of one head against all past keys. Made inside the task.

    Attributes
    ----------
    strip_queries : queries taken at a time.
    num_vectors : vectors of a row.
    scores : (strip_queries, padded keys) int32, `ordered_bits` of q.k; padding is MASKED_SCORE.
    """

    def __init__(self, spec: AttentionSpec, features: CpuFeatures, num_keys: Expr) -> None:
        sizes = attention_tile(features)
        assert sizes.key_block % sizes.lanes == 0 == sizes.key_block % sizes.register_rows
        self.dims = spec.head_dim
        self.num_q_heads = spec.num_q_heads
        self.lanes = sizes.lanes
        self.query_vectors = sizes.query_vectors
        self.strip_queries = sizes.strip_queries
        self.group = sizes.register_rows
        self.key_block = sizes.key_block
        self.num_keys = num_keys
        row_keys = lcm(sizes.key_block, row_multiple(features))
        self.padded_keys = T.bind(T.ceildiv(num_keys, row_keys) * row_keys)
        self.num_vectors = T.bind(self.padded_keys // sizes.lanes)
        self.q_t = T.alloc_buffer((spec.head_dim, sizes.strip_queries), "float32")
        self.block = T.alloc_buffer((sizes.key_block, sizes.strip_queries), "float32")
        self.rows = T.alloc_buffer((sizes.key_block,), "int32")
        self.scores = T.alloc_buffer((sizes.strip_queries, self.padded_keys), "int32")

    def vector(self, index: Expr) -> Expr:
        """The positions of the `index`-th vector."""
        return T.ramp(index * self.lanes, 1, self.lanes)

    @T.inline
    def fill(
        self,
        q_rows: T.Buffer,
        cache_rows: T.Buffer,
        row_table: T.Buffer,
        key_offset: Expr,
        head: Expr,
        first_query: Expr,
        num_queries: Expr,
    ) -> None:
        """`scores` of `num_queries` queries from `first_query` on (the last one is repeated):
        q_rows (tokens * Hq, D), key j is `cache_rows[row_table[j] + key_offset]`."""
        for m in range(self.strip_queries):
            row = T.bind((first_query + T.min(m, num_queries - 1)) * self.num_q_heads + head)
            for d in range(self.dims):
                self.q_t[d, m] = as_float32(q_rows[row, d])
        for block in range(T.ceildiv(self.num_keys, self.key_block)):
            first_key = T.bind(block * self.key_block)
            for i in range(self.key_block):
                self.rows[i] = row_table[T.min(first_key + i, self.num_keys - 1)] + key_offset
            self.score_block(cache_rows)
            for square in range(self.key_block // self.lanes):
                for v in T.unroll(self.query_vectors):
                    self.store_square(square, v, first_key)
        for i in range(num_queries):
            for pad in range(self.padded_keys - self.num_keys):
                self.scores[i, self.num_keys + pad] = T.int32(MASKED_SCORE)

    @T.inline
    def score_block(self, cache_rows: T.Buffer) -> None:
        """`block` = the keys of `rows` times the strip's queries."""
        for group in range(self.key_block // self.group):
            acc = T.alloc_buffer((self.group * self.query_vectors * self.lanes,), "float32")
            for i in T.unroll(self.group * self.query_vectors):
                acc[self.vector(i)] = const_f32(0.0, self.lanes)
            for d in range(self.dims):
                for r in T.unroll(self.group):
                    for v in T.unroll(self.query_vectors):
                        acc[self.vector(r * self.query_vectors + v)] = acc[
                            self.vector(r * self.query_vectors + v)
                        ] + self.q_t[d, self.vector(v)] * splat(
                            as_float32(cache_rows[self.rows[group * self.group + r], d]), self.lanes
                        )
            for r in T.unroll(self.group):
                for v in T.unroll(self.query_vectors):
                    self.block[group * self.group + r, self.vector(v)] = acc[
                        self.vector(r * self.query_vectors + v)
                    ]

    def store_square(self, square: Expr, query_vector: Expr, first_key: Expr) -> None:
        """Plain Python: as many keys as queries, from `block` to `scores`."""
        keys = [
            self.block[square * self.lanes + i, self.vector(query_vector)]
            for i in range(self.lanes)
        ]
        position = T.ramp(first_key + square * self.lanes, 1, self.lanes)
        for lane, row in enumerate(transpose(keys, self.lanes)):
            query = query_vector * self.lanes + lane
            T.buffer_store(self.scores, ordered_bits(row, self.lanes), [query, position])
