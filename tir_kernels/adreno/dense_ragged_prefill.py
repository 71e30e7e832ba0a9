"""Dense prefill on Adreno, a chunk of new tokens against itself."""

from __future__ import annotations

from tvm import tirx
from tvm.script import tirx as T

from ..spec import AttentionSpec
from .block_group import BlockGroup, block_sizes
from .query_tile import QueryTile, max_tiles


def dense_ragged_prefill(spec: AttentionSpec) -> tirx.PrimFunc:
    """Attention of each sequence's new queries to its new keys.

    Variables, computation and what is ignored are those of `attention.dense_ragged_prefill`, with
    q, k, v and output in the dtype of the spec. Scores and sums are float32.
    """
    sizes = block_sizes(spec)
    hq, hkv, unit = spec.num_q_heads, spec.num_kv_heads, spec.group_size
    stored, dims = spec.stored_heads, spec.head_dim

    @T.prim_func(s_tir=True)
    def shadowattn_adreno_dense_ragged_prefill(
        var_q: T.handle,  # (queries, Hq, D)
        var_q_indptr: T.handle,  # (batch + 1,)
        var_k: T.handle,  # (keys, Hs, D)
        var_v: T.handle,  # (keys, Hs, D)
        var_kv_indptr: T.handle,  # (batch + 1,)
        var_q_rope_position: T.handle,  # (queries,)
        var_k_rope_pos_offset: T.handle,  # (batch,)
        var_output: T.handle,  # (queries, Hq, D)
        var_lse: T.handle,  # (queries, Hq)
        causal: T.int32,
        rotary_mode: T.int32,
        rope_scale: T.float32,
        rope_theta: T.float32,
        sm_scale: T.float32,
    ) -> None:
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
        batch, queries, keys = T.int32(), T.int32(), T.int32()
        q_indptr_at, kv_indptr_at, q_rope_at, k_rope_at = T.int32(), T.int32(), T.int32(), T.int32()
        q = T.match_buffer(var_q, (queries, hq, dims), spec.dtype)
        q_indptr = T.match_buffer(var_q_indptr, (batch + 1,), "int32", elem_offset=q_indptr_at)
        k = T.match_buffer(var_k, (keys, stored, dims), spec.dtype)
        v = T.match_buffer(var_v, (keys, stored, dims), spec.dtype)
        kv_indptr = T.match_buffer(var_kv_indptr, (batch + 1,), "int32", elem_offset=kv_indptr_at)
        T.match_buffer(var_q_rope_position, (queries,), "int32", elem_offset=q_rope_at)
        T.match_buffer(var_k_rope_pos_offset, (batch,), "int32", elem_offset=k_rope_at)
        output = T.match_buffer(var_output, (queries, hq, dims), spec.dtype)
        lse = T.match_buffer(var_lse, (queries, hq), "float32")
        q_rows = T.decl_buffer((queries * hq, dims), spec.dtype, data=q.data)
        k_rows = T.decl_buffer((keys * stored, dims), spec.dtype, data=k.data)
        v_rows = T.decl_buffer((keys * stored, dims), spec.dtype, data=v.data)
        out_rows = T.decl_buffer((queries * hq, dims), spec.dtype, data=output.data)
        lse_rows = T.decl_buffer((queries * hq,), "float32", data=lse.data)

        for bx in T.thread_binding(
            max_tiles(queries, batch, unit, sizes.rows), thread="blockIdx.x"
        ):
            for kv_head in T.thread_binding(hkv, thread="blockIdx.y"):
                for row in T.thread_binding(sizes.rows, thread="threadIdx.y"):
                    for column in T.thread_binding(sizes.columns, thread="threadIdx.x"):
                        tile = QueryTile(unit, sizes.rows)
                        tile.locate(bx, q_indptr, batch)
                        b = T.meta_var(tile.sequence)
                        seq_keys = T.bind(kv_indptr[b + 1] - kv_indptr[b])
                        before = T.bind(
                            T.if_then_else(causal > 0, seq_keys - tile.num_queries + 1, seq_keys)
                        )
                        step = T.bind(T.if_then_else(causal > 0, 1, 0))
                        last = T.meta_var((tile.first + tile.num_rows - 1) // unit)
                        block = BlockGroup(spec, sizes, row, column)
                        block.start(
                            q_rows,
                            tile.num_rows,
                            lambda i: tile.query_row(i, kv_head * unit, hq),
                        )
                        block.limit[0] = before + step * ((tile.first + row) // unit)
                        block.attend(
                            k_rows,
                            v_rows,
                            0,
                            T.if_then_else(tile.num_rows > 0, T.max(before + step * last, 0), 0),
                            lambda i: (kv_indptr[b] + i) * stored + kv_head,
                        )
                        if row < tile.num_rows:
                            block.finish(
                                out_rows, lse_rows, tile.query_row(row, kv_head * unit, hq)
                            )

    return shadowattn_adreno_dense_ragged_prefill
