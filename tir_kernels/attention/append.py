"""New keys and values into their pages, row by row: the runtime's append slot."""

from __future__ import annotations

from tvm import tirx
from tvm.script import tirx as T

from ..features import CpuFeatures
from ..simd.vector import Expr
from ..spec import AttentionSpec
from .page_table import KV_PLANES, key_row, page_rows, value_row_offset

NOWHERE = -1
"""The runtime's position of a token that isn't kept."""

_SERIAL_TOKENS = 16
"""Up to so many are copied in less time than another thread takes to wake (about 5 us)."""


@T.inline
def append_row(
    cache_rows: T.Buffer,
    row: Expr,
    k_data: T.Buffer,
    v_data: T.Buffer,
    token: Expr,
    kv_head: Expr,
    spec: AttentionSpec,
    lanes: int,
) -> None:
    """K and V of a token's KV head, of `k_data`, `v_data` (tokens, Hs, D), to `row` of
    `page_rows` and to the row of its value."""
    for v in range(spec.head_dim // lanes):
        elements = T.meta_var(T.ramp(v * lanes, 1, lanes))
        cache_rows[row, elements] = k_data[token, kv_head, elements]
        cache_rows[row + value_row_offset(spec), elements] = v_data[token, kv_head, elements]


def append(spec: AttentionSpec, features: CpuFeatures) -> tirx.PrimFunc:
    """The runtime's append slot, without a shadow of the keys.

    Variables: `pages` (num_pages, 2, Hs, page_size, D) and `k_data`, `v_data` (tokens, Hs, D),
    dtype of the spec, of which the KV heads are copied; `position_map` (tokens,) int32,
    page * page_size + slot, or -1 = nowhere.

    TVM's own takes a heap allocation for every element that it copies.
    """
    hkv, stored = spec.num_kv_heads, spec.stored_heads
    dims, slots = spec.head_dim, spec.page_size

    @T.inline
    def append_token(
        cache_rows: T.Buffer,
        k_data: T.Buffer,
        v_data: T.Buffer,
        position_map: T.Buffer,
        token: Expr,
    ) -> None:
        if position_map[token] != NOWHERE:
            page = T.bind(position_map[token] // slots)
            slot = T.bind(position_map[token] % slots)
            for kv_head in range(hkv):
                row = T.bind(key_row(page, kv_head, slot, spec))
                append_row(cache_rows, row, k_data, v_data, token, kv_head, spec, features.lanes)

    @T.prim_func(s_tir=True)
    def shadowattn_append(
        var_pages: T.handle,  # (num_pages, 2, Hs, page_size, D)
        var_k_data: T.handle,  # (tokens, Hs, D)
        var_v_data: T.handle,  # (tokens, Hs, D)
        var_position_map: T.handle,  # (tokens,)
    ) -> None:
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
        tokens, num_pages, position_map_at = T.int32(), T.int32(), T.int32()
        pages = T.match_buffer(var_pages, (num_pages, KV_PLANES, stored, slots, dims), spec.dtype)
        k_data = T.match_buffer(var_k_data, (tokens, stored, dims), spec.dtype)
        v_data = T.match_buffer(var_v_data, (tokens, stored, dims), spec.dtype)
        position_map = T.match_buffer(
            var_position_map, (tokens,), "int32", elem_offset=position_map_at
        )
        cache_rows = page_rows(pages, num_pages, spec)
        if tokens > _SERIAL_TOKENS:
            for token in T.parallel(tokens):
                append_token(cache_rows, k_data, v_data, position_map, token)
        else:
            for token in range(tokens):
                append_token(cache_rows, k_data, v_data, position_map, token)

    return shadowattn_append
