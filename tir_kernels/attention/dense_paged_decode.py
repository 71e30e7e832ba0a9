"""Dense decode on CPUs: one new token per sequence against its pages, split over keys."""

from __future__ import annotations

from typing import Any

from tvm import tirx
from tvm.script import tirx as T

from ..constants import EMPTY_LSE
from ..features import CpuFeatures
from ..simd.vector import const_f32, exp2, splat
from ..spec import AttentionSpec
from .decode_group import DecodeGroup
from .page_table import (
    KV_PLANES,
    list_page_rows,
    page_rows,
    sequence_keys,
    value_row_offset,
)
from .prefill_tile import UNSEEN_SCORE
from .tiles import decode_tile

Expr = Any  # a TIR expression; TVM ships no types


def dense_paged_decode(spec: AttentionSpec, features: CpuFeatures) -> tirx.PrimFunc:
    """Attention of one query per sequence to the keys in its pages.

    Variables: `q`, `output` (batch, Hq, D) and `pages` (num_pages, 2, Hkv, page_size, D), dtype of
    the spec; `lse` (batch, Hq) float32, base 2; int32: `page_indptr` (batch + 1,), where each
    sequence's page ids start in `page_values` (used_pages,); `length_info` (batch,), the keys in
    its last page. Sequences may have no pages.
    Computation: `output = softmax(q.k * spec.sm_scale).v`, `lse = log2(sum(exp(q.k * sm_scale)))`;
    zeros and EMPTY_LSE without keys. Each KV head's keys are cut into splits, attended to in
    parallel; a split leaves its unnormalized sum, its maximum and its weight, which are then added
    up in order, so results don't depend on the number of threads.
    Ignored: rotary_mode, rope_scale, rope_theta and the rope positions, because q and k arrive
    rotated (rope mode NORMAL); sm_scale, because at run time it carries the layer id too.

    The parameters are those of the runtime's decode slot (TVM, src/runtime/vm/attn_backend.h).
    """
    sizes = decode_tile(spec, features)
    hq, hkv, dims, slots = spec.num_q_heads, spec.num_kv_heads, spec.head_dim, spec.page_size
    group, lanes = spec.group_size, sizes.lanes
    pages_per_split = sizes.split_keys // slots

    def splits_of(num_keys: Expr) -> Expr:
        return T.ceildiv(num_keys, sizes.split_keys)

    def vector(index: Expr) -> Expr:
        return T.ramp(index * lanes, 1, lanes)

    @T.prim_func(s_tir=True)
    def shadowattn_dense_paged_decode(
        var_q: T.handle,  # (batch, Hq, D)
        var_pages: T.handle,  # (num_pages, 2, Hkv, page_size, D)
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
        pages = T.match_buffer(var_pages, (num_pages, KV_PLANES, hkv, slots, dims), spec.dtype)
        page_indptr = T.match_buffer(
            var_page_indptr, (batch + 1,), "int32", elem_offset=page_indptr_at
        )
        page_values = T.match_buffer(
            var_page_values, (used_pages,), "int32", elem_offset=page_values_at
        )
        length_info = T.match_buffer(var_length_info, (batch,), "int32", elem_offset=length_info_at)
        _k_rope = T.match_buffer(var_k_rope_pos_offset, (batch,), "int32", elem_offset=k_rope_at)
        _q_rope = T.match_buffer(var_q_rope_position, (batch,), "int32", elem_offset=q_rope_at)
        output = T.match_buffer(var_output, (batch, hq, dims), spec.dtype)
        lse = T.match_buffer(var_lse, (batch, hq), "float32")
        cache_rows = page_rows(pages, num_pages, spec)

        # split_indptr[b] = where sequence b's splits start
        split_indptr = T.alloc_buffer((batch + 1,), "int32")
        split_indptr[0] = 0
        for b in range(batch):
            split_indptr[b + 1] = split_indptr[b] + splits_of(
                sequence_keys(page_indptr[b], page_indptr[b + 1], length_info[b], slots)
            )
        splits = T.bind(split_indptr[batch])
        # at most one split per sequence is not full
        capacity = T.meta_var((used_pages // pages_per_split + batch) * hkv)
        part_o = T.alloc_buffer((capacity, group, dims), "float32")
        part_max = T.alloc_buffer((capacity, group), "float32")
        part_sum = T.alloc_buffer((capacity, group), "float32")

        for task in T.parallel(splits * hkv):
            sequence = T.alloc_buffer((1,), "int32")
            sequence[0] = 0
            while split_indptr[sequence[0] + 1] <= task // hkv:
                sequence[0] = sequence[0] + 1
            b = T.bind(sequence[0])
            kv_head = T.bind(task % hkv)
            first = T.bind((task // hkv - split_indptr[b]) * sizes.split_keys)
            num_keys = T.bind(
                T.min(
                    sizes.split_keys,
                    sequence_keys(page_indptr[b], page_indptr[b + 1], length_info[b], slots)
                    - first,
                )
            )
            heads = DecodeGroup(spec, sizes)
            list_page_rows(
                heads.rows,
                sizes.row_table,
                page_values,
                page_indptr[b],
                kv_head,
                first,
                num_keys,
                spec,
            )
            heads.run(q, b, kv_head, cache_rows, cache_rows, value_row_offset(spec), num_keys)
            for h in range(group):
                part_max[task, h] = heads.row_max[h]
                part_sum[task, h] = heads.row_sum[h]
                for v in range(dims // lanes):
                    part_o[task, h, vector(v)] = heads.o[h, vector(v)]

        # Adding up is about 1/500 of the work: not worth a second launch.
        for b in range(batch):
            for head in range(hq):
                total = T.alloc_buffer((dims,), "float32")
                row_max = T.alloc_buffer((1,), "float32")
                row_sum = T.alloc_buffer((1,), "float32")
                kv_head = T.bind(head // group)
                h = T.bind(head % group)
                row_max[0] = T.float32(UNSEEN_SCORE)
                row_sum[0] = T.float32(0)
                for v in range(dims // lanes):
                    total[vector(v)] = const_f32(0.0, lanes)
                first_split = T.bind(split_indptr[b])
                num_splits = T.bind(split_indptr[b + 1] - first_split)
                for s in range(num_splits):
                    row_max[0] = T.max(row_max[0], part_max[(first_split + s) * hkv + kv_head, h])
                for s in range(num_splits):
                    task = T.bind((first_split + s) * hkv + kv_head)
                    weight = T.bind(exp2(part_max[task, h] - row_max[0], 1))
                    row_sum[0] = row_sum[0] + part_sum[task, h] * weight
                    for v in range(dims // lanes):
                        total[vector(v)] = total[vector(v)] + part_o[task, h, vector(v)] * splat(
                            weight, lanes
                        )
                if num_splits > 0:
                    inverse = T.bind(T.float32(1) / row_sum[0])
                    for v in range(dims // lanes):
                        output[b, head, vector(v)] = total[vector(v)] * splat(inverse, lanes)
                    lse[b, head] = row_max[0] + T.log2(row_sum[0])
                else:
                    for v in range(dims // lanes):
                        output[b, head, vector(v)] = const_f32(0.0, lanes)
                    lse[b, head] = T.float32(EMPTY_LSE)

    return shadowattn_dense_paged_decode
