"""Moving slots of pages with all their head rows: what fork, pop, compaction and inspection do.

Contents
- `copy_page`: the first slots of a page into another page (fork, and pop into a shared page).
- `compact_pages`: slots to other places (accepted nodes of a token tree).
- `read_pages`: slots out of the pages (the runtime's debug_get_kv).

The runtime's own kernels with more heads would do the same; these go wherever a cache has shadow
rows. A slot's rows are copied bit by bit, whatever they hold.
"""

from __future__ import annotations

from tvm import tirx
from tvm.script import tirx as T

from ..attention.page_table import KV_PLANES
from ..features import CpuFeatures
from ..simd.vector import Expr
from ..spec import AttentionSpec


def copy_page(spec: AttentionSpec, features: CpuFeatures) -> tirx.PrimFunc:
    """Slots `0 : copy_length` of page `source` into page `target`.

    Variables: `pages` (num_pages, 2, Hs, page_size, D), dtype of the spec; int64 scalars.
    """
    stored, slots, dims = spec.stored_heads, spec.page_size, spec.head_dim
    lanes = features.lanes

    @T.prim_func(s_tir=True)
    def shadowattn_copy_page(
        var_pages: T.handle, source: T.int64, target: T.int64, copy_length: T.int64
    ) -> None:
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
        num_pages = T.int32()
        pages = T.match_buffer(var_pages, (num_pages, KV_PLANES, stored, slots, dims), spec.dtype)
        for plane, head in T.grid(KV_PLANES, stored):
            for slot in range(copy_length):
                for v in range(dims // lanes):
                    elements = T.meta_var(T.ramp(v * lanes, 1, lanes))
                    pages[target, plane, head, slot, elements] = pages[
                        source, plane, head, slot, elements
                    ]

    return shadowattn_copy_page


def compact_pages(spec: AttentionSpec, features: CpuFeatures) -> tirx.PrimFunc:
    """Slots from place to place, in order, sequence by sequence.

    Variables: `pages` (num_pages, 2, Hs, page_size, D), dtype of the spec; int32:
    `copy_length_indptr` (batch + 1,), where each sequence's moves start, and `copy_src_dst_pos`
    (2, total), from where to where, page * page_size + slot; `batch_size`.
    """
    stored, slots, dims = spec.stored_heads, spec.page_size, spec.head_dim
    lanes = features.lanes

    @T.prim_func(s_tir=True)
    def shadowattn_compact_pages(
        var_pages: T.handle,
        var_copy_length_indptr: T.handle,
        var_copy_src_dst_pos: T.handle,
        batch_size: T.int32,
    ) -> None:
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
        num_pages, total, indptr_at, moves_at = T.int32(), T.int32(), T.int32(), T.int32()
        pages = T.match_buffer(var_pages, (num_pages, KV_PLANES, stored, slots, dims), spec.dtype)
        indptr = T.match_buffer(
            var_copy_length_indptr, (batch_size + 1,), "int32", elem_offset=indptr_at
        )
        moves = T.match_buffer(var_copy_src_dst_pos, (2, total), "int32", elem_offset=moves_at)
        for b in range(batch_size):
            for i in range(indptr[b + 1] - indptr[b]):
                source = T.bind(moves[0, indptr[b] + i])
                target = T.bind(moves[1, indptr[b] + i])
                for plane, head in T.grid(KV_PLANES, stored):
                    for v in range(dims // lanes):
                        elements = T.meta_var(T.ramp(v * lanes, 1, lanes))
                        pages[target // slots, plane, head, target % slots, elements] = pages[
                            source // slots, plane, head, source % slots, elements
                        ]

    return shadowattn_compact_pages


def read_pages(spec: AttentionSpec, features: CpuFeatures, num_layers: int) -> tirx.PrimFunc:
    """One layer's head rows of given places, the shadow's bytes included.

    Variables: `pages` (num_pages, 2, Hs, page_size, D) and outputs `k_data`, `v_data`
    (layers, places, Hs, D), dtype of the spec; `position_map` (places,) int32,
    page * page_size + slot; `layer_id` int64.
    """
    stored, slots, dims = spec.stored_heads, spec.page_size, spec.head_dim
    lanes = features.lanes

    def vector(index: Expr) -> Expr:
        return T.ramp(index * lanes, 1, lanes)

    @T.prim_func(s_tir=True)
    def shadowattn_read_pages(
        var_pages: T.handle,
        var_position_map: T.handle,
        var_k_data: T.handle,
        var_v_data: T.handle,
        layer_id: T.int64,
    ) -> None:
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
        num_pages, places, positions_at = T.int32(), T.int32(), T.int32()
        pages = T.match_buffer(var_pages, (num_pages, KV_PLANES, stored, slots, dims), spec.dtype)
        positions = T.match_buffer(var_position_map, (places,), "int32", elem_offset=positions_at)
        k_data = T.match_buffer(var_k_data, (num_layers, places, stored, dims), spec.dtype)
        v_data = T.match_buffer(var_v_data, (num_layers, places, stored, dims), spec.dtype)
        for i in range(places):
            page = T.bind(positions[i] // slots)
            slot = T.bind(positions[i] % slots)
            for head in range(stored):
                for v in range(dims // lanes):
                    k_data[layer_id, i, head, vector(v)] = pages[page, 0, head, slot, vector(v)]
                    v_data[layer_id, i, head, vector(v)] = pages[page, 1, head, slot, vector(v)]

    return shadowattn_read_pages
