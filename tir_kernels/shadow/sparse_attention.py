"""Sparse attention: exact float32 attention of each query over its own list of keys.

Source: "Dynamic Sparse Attention on Mobile SoCs", the sparse attention of the online stage.
"""

from __future__ import annotations

from tvm import tirx
from tvm.script import tirx as T

from ..features import CpuFeatures
from ..spec import AttentionSpec
from .sparse_tile import SparseTile

TILE_QUERIES = 32
"""Queries of the standalone stage's tiles: they share a block of keys while it is in cache."""


def sparse_attention(spec: AttentionSpec, features: CpuFeatures) -> tirx.PrimFunc:
    """The standalone stage: one query head, each query over its own list of keys.

    Variables: `q`, `output` (m, Hq, D), of which `head` is read and written; `lse` (m, Hq) float32,
    base 2; `k_rows`, `v_rows` (R, D), possibly the same; `row_table` (n,) int32, key j has K in row
    `row_table[j] + key_offset`, V in row `row_table[j] + value_offset`; `indices` (m, c) int32,
    ascending, and `counts` (m,) int32, as `top_k` writes them.
    Computation: `output = softmax(q.k * spec.sm_scale).v`, `lse = log2(sum(exp(q.k * sm_scale)))`
    over a query's list; zeros and EMPTY_LSE for an empty one.
    """
    dim, heads, lanes = spec.head_dim, spec.num_q_heads, features.lanes

    @T.prim_func(s_tir=True)
    def shadowattn_sparse_attention(
        var_q: T.handle,  # (m, Hq, D)
        var_k_rows: T.handle,  # (R, D)
        var_v_rows: T.handle,  # (R, D)
        var_row_table: T.handle,  # (n,)
        var_indices: T.handle,  # (m, c)
        var_counts: T.handle,  # (m,)
        var_output: T.handle,  # (m, Hq, D)
        var_lse: T.handle,  # (m, Hq)
        head: T.int32,
        key_offset: T.int32,
        value_offset: T.int32,
    ) -> None:
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
        num_queries, num_keys, capacity = T.int32(), T.int32(), T.int32()
        num_k_rows, num_v_rows = T.int32(), T.int32()
        q = T.match_buffer(var_q, (num_queries, heads, dim), spec.dtype)
        k_rows = T.match_buffer(var_k_rows, (num_k_rows, dim), spec.dtype)
        v_rows = T.match_buffer(var_v_rows, (num_v_rows, dim), spec.dtype)
        row_table = T.match_buffer(var_row_table, (num_keys,), "int32")
        indices = T.match_buffer(var_indices, (num_queries, capacity), "int32")
        counts = T.match_buffer(var_counts, (num_queries,), "int32")
        output = T.match_buffer(var_output, (num_queries, heads, dim), spec.dtype)
        lse = T.match_buffer(var_lse, (num_queries, heads), "float32")
        q_rows = T.decl_buffer((num_queries * heads, dim), spec.dtype, data=q.data)
        tile = SparseTile(spec, features, TILE_QUERIES, capacity + lanes)
        for t in range(T.ceildiv(num_queries, TILE_QUERIES)):
            first = T.bind(t * TILE_QUERIES)
            tile_size = T.bind(T.min(TILE_QUERIES, num_queries - first))
            for i in range(tile_size):
                tile.load(q_rows, (first + i) * heads + head, i)
                tile.counts[i] = counts[first + i]
                for p in range(counts[first + i]):
                    tile.indices[i, p] = indices[first + i, p]
            tile.attend(k_rows, v_rows, row_table, key_offset, value_offset, tile_size, num_keys)
            for i in range(tile_size):
                tile.store(output, lse, first + i, head, i)

    return shadowattn_sparse_attention
