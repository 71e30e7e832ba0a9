"""Dense prefill on Adreno, the new tokens of a chunk against older tokens in pages."""

from __future__ import annotations

from tvm import tirx
from tvm.script import tirx as T

from ..attention.page_table import (
    KV_PLANES,
    key_row,
    page_rows,
    sequence_keys,
    value_row_offset,
)
from ..spec import AttentionSpec
from .block_group import BlockGroup, block_sizes
from .query_tile import QueryTile, max_tiles


def dense_paged_prefill(spec: AttentionSpec) -> tirx.PrimFunc:
    """Attention of each sequence's new queries to the keys in its pages.

    Variables, computation and what is ignored are those of `attention.dense_paged_prefill`, with q,
    pages and output in the dtype of the spec. Scores and sums are float32.
    """
    sizes = block_sizes(spec)
    hq, hkv, unit = spec.num_q_heads, spec.num_kv_heads, spec.group_size
    stored, dims, slots = spec.stored_heads, spec.head_dim, spec.page_size

    @T.prim_func(s_tir=True)
    def shadowattn_adreno_dense_paged_prefill(
        var_q: T.handle,  # (tokens, Hq, D)
        var_q_indptr: T.handle,  # (batch + 1,)
        var_pages: T.handle,  # (num_pages, 2, Hs, page_size, D)
        var_page_indptr: T.handle,  # (batch + 1,)
        var_page_values: T.handle,  # (used_pages,)
        var_length_info: T.handle,  # (batch,)
        var_k_rope_pos_offset: T.handle,  # (batch,)
        var_q_rope_position: T.handle,  # (tokens,)
        var_output: T.handle,  # (tokens, Hq, D)
        var_lse: T.handle,  # (tokens, Hq)
        causal: T.int32,
        rotary_mode: T.int32,
        rope_scale: T.float32,
        rope_theta: T.float32,
        sm_scale: T.float32,
    ) -> None:
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
        batch, tokens, num_pages, used_pages = T.int32(), T.int32(), T.int32(), T.int32()
        q_indptr_at, page_indptr_at, page_values_at = T.int32(), T.int32(), T.int32()
        length_info_at, k_rope_at, q_rope_at = T.int32(), T.int32(), T.int32()
        q = T.match_buffer(var_q, (tokens, hq, dims), spec.dtype)
        q_indptr = T.match_buffer(var_q_indptr, (batch + 1,), "int32", elem_offset=q_indptr_at)
        pages = T.match_buffer(var_pages, (num_pages, KV_PLANES, stored, slots, dims), spec.dtype)
        page_indptr = T.match_buffer(
            var_page_indptr, (batch + 1,), "int32", elem_offset=page_indptr_at
        )
        page_values = T.match_buffer(
            var_page_values, (used_pages,), "int32", elem_offset=page_values_at
        )
        length_info = T.match_buffer(var_length_info, (batch,), "int32", elem_offset=length_info_at)
        T.match_buffer(var_k_rope_pos_offset, (batch,), "int32", elem_offset=k_rope_at)
        T.match_buffer(var_q_rope_position, (tokens,), "int32", elem_offset=q_rope_at)
        output = T.match_buffer(var_output, (tokens, hq, dims), spec.dtype)
        lse = T.match_buffer(var_lse, (tokens, hq), "float32")
        q_rows = T.decl_buffer((tokens * hq, dims), spec.dtype, data=q.data)
        out_rows = T.decl_buffer((tokens * hq, dims), spec.dtype, data=output.data)
        lse_rows = T.decl_buffer((tokens * hq,), "float32", data=lse.data)
        cache_rows = page_rows(pages, num_pages, spec)

        for bx in T.thread_binding(max_tiles(tokens, batch, unit, sizes.rows), thread="blockIdx.x"):
            for kv_head in T.thread_binding(hkv, thread="blockIdx.y"):
                for row in T.thread_binding(sizes.rows, thread="threadIdx.y"):
                    for column in T.thread_binding(sizes.columns, thread="threadIdx.x"):
                        tile = QueryTile(unit, sizes.rows)
                        tile.locate(bx, q_indptr, batch)
                        b = T.meta_var(tile.sequence)
                        keys = T.bind(
                            sequence_keys(page_indptr[b], page_indptr[b + 1], length_info[b], slots)
                        )
                        before = T.bind(
                            T.if_then_else(causal > 0, keys - tile.num_queries + 1, keys)
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
                            cache_rows,
                            cache_rows,
                            value_row_offset(spec),
                            T.if_then_else(tile.num_rows > 0, T.max(before + step * last, 0), 0),
                            lambda i: key_row(
                                page_values[page_indptr[b] + i // slots], kv_head, i % slots, spec
                            ),
                        )
                        if row < tile.num_rows:
                            block.finish(
                                out_rows, lse_rows, tile.query_row(row, kv_head * unit, hq)
                            )

    return shadowattn_adreno_dense_paged_prefill
