"""Dense decode on Adreno: one new token per sequence against its pages, split over keys.

A token has few rows of queries, so work-groups share out the keys instead; a second launch puts
their parts together.
"""

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
from ..constants import EMPTY_LSE
from ..spec import AttentionSpec
from .block_group import BlockGroup, block_sizes
from .limits import VECTOR
from .vector import floats, part, splat, zeros

_SPLIT_KEYS = 256
"""Keys of a work-group, if all sequences are alike: enough to be worth adding up its result."""

_MAX_SPLITS = 64
"""More would not be busy at the same time."""


def dense_paged_decode(spec: AttentionSpec) -> tirx.PrimFunc:
    """Attention of one query per sequence to the keys in its pages.

    Variables, computation and what is ignored are those of `attention.dense_paged_decode`, with q,
    pages and output in the dtype of the spec. Scores and sums are float32.
    """
    hq, hkv, unit = spec.num_q_heads, spec.num_kv_heads, spec.group_size
    stored, dims, slots = spec.stored_heads, spec.head_dim, spec.page_size
    sizes = block_sizes(spec, unit)
    row_tiles = -(-unit // sizes.rows)
    parts = dims // VECTOR

    @T.prim_func(s_tir=True)
    def shadowattn_adreno_dense_paged_decode(
        var_q: T.handle,  # (batch, Hq, D)
        var_pages: T.handle,  # (num_pages, 2, Hs, page_size, D)
        var_page_indptr: T.handle,  # (batch + 1,)
        var_page_values: T.handle,  # (used_pages,)
        var_length_info: T.handle,  # (batch,)
        var_k_rope_pos_offset: T.handle,  # (batch,)
        var_q_rope_position: T.handle,  # (batch,)
        var_output: T.handle,  # (batch, Hq, D)
        var_lse: T.handle,  # (batch, Hq)
        rotary_mode: T.int32,
        rope_scale: T.float32,
        rope_theta: T.float32,
        sm_scale: T.float32,
    ) -> None:
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
        batch, num_pages, used_pages = T.int32(), T.int32(), T.int32()
        page_indptr_at, page_values_at, length_info_at = T.int32(), T.int32(), T.int32()
        k_rope_at, q_rope_at = T.int32(), T.int32()
        q = T.match_buffer(var_q, (batch, hq, dims), spec.dtype)
        pages = T.match_buffer(var_pages, (num_pages, KV_PLANES, stored, slots, dims), spec.dtype)
        page_indptr = T.match_buffer(
            var_page_indptr, (batch + 1,), "int32", elem_offset=page_indptr_at
        )
        page_values = T.match_buffer(
            var_page_values, (used_pages,), "int32", elem_offset=page_values_at
        )
        length_info = T.match_buffer(var_length_info, (batch,), "int32", elem_offset=length_info_at)
        T.match_buffer(var_k_rope_pos_offset, (batch,), "int32", elem_offset=k_rope_at)
        T.match_buffer(var_q_rope_position, (batch,), "int32", elem_offset=q_rope_at)
        output = T.match_buffer(var_output, (batch, hq, dims), spec.dtype)
        lse = T.match_buffer(var_lse, (batch, hq), "float32")
        q_rows = T.decl_buffer((batch * hq, dims), spec.dtype, data=q.data)
        cache_rows = page_rows(pages, num_pages, spec)

        # As many splits for every sequence; short ones leave some of theirs empty.
        num_splits = T.bind(
            T.min(T.max(T.ceildiv(used_pages * slots, _SPLIT_KEYS * batch), 1), _MAX_SPLITS)
        )
        part_rows = T.alloc_buffer((num_splits * batch * hq, dims), "float32")
        part_lse = T.alloc_buffer((num_splits * batch * hq,), "float32")

        # 1. Each work-group: some heads of a group, one split
        for b in T.thread_binding(batch, thread="blockIdx.x"):
            for by in T.thread_binding(hkv * row_tiles, thread="blockIdx.y"):
                for split in T.thread_binding(num_splits, thread="blockIdx.z"):
                    for row in T.thread_binding(sizes.rows, thread="threadIdx.y"):
                        for column in T.thread_binding(sizes.columns, thread="threadIdx.x"):
                            kv_head = T.meta_var(by // row_tiles)
                            first_row = T.meta_var(by % row_tiles * sizes.rows)
                            first_head = T.meta_var(kv_head * unit + first_row)
                            keys = T.bind(
                                sequence_keys(
                                    page_indptr[b], page_indptr[b + 1], length_info[b], slots
                                )
                            )
                            share = T.bind(T.ceildiv(keys, num_splits))
                            first_key = T.bind(T.min(split * share, keys))
                            num_keys = T.bind(T.min(share, keys - first_key))
                            block = BlockGroup(spec, sizes, row, column)
                            block.start(
                                q_rows,
                                T.min(sizes.rows, unit - first_row),
                                lambda i: b * hq + first_head + i,
                            )
                            block.limit[0] = num_keys
                            block.attend(
                                cache_rows,
                                cache_rows,
                                value_row_offset(spec),
                                num_keys,
                                lambda i: key_row(
                                    page_values[page_indptr[b] + (first_key + i) // slots],
                                    kv_head,
                                    (first_key + i) % slots,
                                    spec,
                                ),
                            )
                            if first_row + row < unit:
                                block.finish(
                                    part_rows,
                                    part_lse,
                                    (split * batch + b) * hq + first_head + row,
                                    "float32",
                                )

        # 2. The splits of a row, merged by their lse
        for b in T.thread_binding(batch, thread="blockIdx.x"):
            for head in T.thread_binding(hq, thread="blockIdx.y"):
                for item in T.thread_binding(parts, thread="threadIdx.x"):
                    best = T.alloc_buffer((1,), "float32", scope="local")
                    total = T.alloc_buffer((1,), "float32", scope="local")
                    weight = T.alloc_buffer((1,), "float32", scope="local")
                    value = T.alloc_buffer((VECTOR,), "float32", scope="local")
                    best[0] = T.float32(EMPTY_LSE)
                    for s in range(num_splits):
                        best[0] = T.max(best[0], part_lse[(s * batch + b) * hq + head])
                    total[0] = T.float32(0)
                    value[part(0)] = zeros()
                    for s in range(num_splits):
                        weight[0] = T.exp2(part_lse[(s * batch + b) * hq + head] - best[0])
                        total[0] = total[0] + weight[0]
                        value[part(0)] = value[part(0)] + splat(weight[0]) * floats(
                            part_rows[(s * batch + b) * hq + head, part(item)]
                        )
                    output[b, head, part(item)] = T.Cast(
                        f"{spec.dtype}x{VECTOR}", value[part(0)] * splat(T.float32(1) / total[0])
                    )
                    if item == 0:
                        lse[b, head] = T.if_then_else(
                            best[0] > T.float32(EMPTY_LSE),
                            best[0] + T.log2(total[0]),
                            T.float32(EMPTY_LSE),
                        )

    return shadowattn_adreno_dense_paged_decode
