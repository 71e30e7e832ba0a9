"""New keys and values into their pages, and the INT8 shadow of the keys beside them.

A key is quantized once, when it arrives, so its scale can't depend on what comes later: it is
lambda_K of the plan, the middle one of the bucket grid, and larger keys saturate. (In prefill the
scale of a sequence's keys is chosen anew for every chunk.) The plan's centring and rotation apply
as they do there. Where the rows have room, the largest |element| of each key is written, too:
prefill chooses scales by it, and takes the shadow where it chooses the middle one
(`pilot.kept_keys`).
"""

from __future__ import annotations

from tvm import tirx
from tvm.script import tirx as T

from ..attention.append import NOWHERE, append_row
from ..attention.page_table import KV_PLANES, key_row, page_rows
from ..features import CpuFeatures
from ..pilot.pilot_rows import AbsoluteMaximum, PilotRow
from ..pilot.plan_table import PlanTable
from ..pilot.quantize import KeyQuantizer
from ..pilot.shadow_rows import (
    has_key_maxima,
    maximum_column,
    maximum_elements,
    shadow_column,
    shadow_row,
)
from ..simd.storage import as_float32
from ..simd.vector import Expr
from ..spec import ShadowSpec
from .row_dot import row_dot_method

_COPY_BYTES = 16
"""Of a quantized key, moved at a time: every head dim is a multiple of that."""


@T.meta_class
class ShadowWriter:
    """Quantizes keys and stores them as rows of bytes. Made inside the task."""

    def __init__(self, spec: ShadowSpec, features: CpuFeatures) -> None:
        geometry = spec.attention
        self.spec = geometry
        self.middle = spec.buckets_per_axis // 2
        view = PilotRow(
            geometry.head_dim,
            features.lanes,
            centered=spec.key_means is not None,
            rotated=spec.pilot.hadamard_rotation,
        )
        dot = row_dot_method(features, geometry.head_dim)
        self.largest = AbsoluteMaximum(view)
        self.quantizer = KeyQuantizer(geometry.head_dim, dot, view, spec.pilot.quant_max)
        self.elements = _COPY_BYTES // geometry.element_bytes
        self.vectors = geometry.head_dim // _COPY_BYTES

    def bytes_at(self, index: Expr) -> Expr:
        """One vector of the quantized key, as the elements of the pages that its bytes make."""
        key_bytes = self.quantizer.key[T.ramp(index * _COPY_BYTES, 1, _COPY_BYTES)]
        return T.reinterpret(f"{self.spec.dtype}x{self.elements}", key_bytes)

    @T.inline
    def write(
        self,
        k_rows: T.Buffer,
        k_row: Expr,
        kv_head: Expr,
        plan: PlanTable,
        cache_rows: T.Buffer,
        page: Expr,
        slot: Expr,
    ) -> None:
        """The shadow of `k_rows[k_row]`, k_rows (any, D), into a page's slot."""
        scale = T.bind(plan.k_scales[kv_head, self.middle])
        if self.quantizer.view.changed:
            self.quantizer.view.load(k_rows, k_row, plan.key_means, kv_head)
            self.write_as_seen(self.quantizer.view.row, 0, scale, kv_head, cache_rows, page, slot)
        else:
            self.write_as_seen(k_rows, k_row, scale, kv_head, cache_rows, page, slot)

    @T.inline
    def write_as_seen(
        self,
        k_rows: T.Buffer,
        k_row: Expr,
        scale: Expr,
        kv_head: Expr,
        cache_rows: T.Buffer,
        page: Expr,
        slot: Expr,
    ) -> None:
        """The shadow of `k_rows[k_row]`, a key as the pilot sees it."""
        self.quantizer.quantize(k_rows, k_row, scale)
        row = T.bind(shadow_row(page, kv_head, slot, self.spec))
        column = T.bind(shadow_column(kv_head, self.spec))
        for j in T.unroll(self.vectors):
            cache_rows[row, T.ramp(column + j * self.elements, 1, self.elements)] = self.bytes_at(j)
        if has_key_maxima(self.spec):
            self.largest.clear()
            self.largest.include_stored(k_rows, k_row)
            self.store_maximum(
                cache_rows, shadow_row(page, self.spec.num_kv_heads, slot, self.spec), kv_head
            )

    def store_maximum(self, cache_rows: T.Buffer, row: Expr, kv_head: Expr) -> None:
        """Plain Python, run while the kernel is parsed: `largest` as elements of the pages."""
        column, elements = maximum_column(kv_head, self.spec), maximum_elements(self.spec)
        if elements == 1:
            T.buffer_store(cache_rows, self.largest.value(), [row, column])
        else:
            halves = T.reinterpret(f"{self.spec.dtype}x{elements}", self.largest.value())
            T.buffer_store(cache_rows, halves, [row, T.ramp(column, 1, elements)])


def shadow_append(spec: ShadowSpec, features: CpuFeatures) -> tirx.PrimFunc:
    """The runtime's append slot.

    Variables: `pages` (num_pages, 2, Hs, page_size, D) and `k_data`, `v_data` (tokens, Hs, D),
    dtype of the spec; `k_data[0, Hkv, 0]` is the layer (see `widen_qkv`), other rows beyond the KV
    heads are ignored; `position_map` (tokens,) int32, page * page_size + slot, or -1 = nowhere.
    Computation: K and V are copied, and K8 = clamp(round_half_even(k' / lambda_K)) is written to
    the bytes of `shadow_rows`, k' being the key as the pilot sees it; max |k'| too, if they have
    room for it.

    A layer that the plan doesn't have is an error at run time.
    """
    geometry = spec.attention
    assert geometry.shadow_rows > 0, "the pages have no room for a shadow"
    hkv, stored = geometry.num_kv_heads, geometry.stored_heads
    dims, slots = geometry.head_dim, geometry.page_size

    @T.prim_func(s_tir=True)
    def shadowattn_shadow_append(
        var_pages: T.handle,  # (num_pages, 2, Hs, page_size, D)
        var_k_data: T.handle,  # (tokens, Hs, D)
        var_v_data: T.handle,  # (tokens, Hs, D)
        var_position_map: T.handle,  # (tokens,)
    ) -> None:
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
        tokens, num_pages, position_map_at = T.int32(), T.int32(), T.int32()
        pages = T.match_buffer(
            var_pages, (num_pages, KV_PLANES, stored, slots, dims), geometry.dtype
        )
        k_data = T.match_buffer(var_k_data, (tokens, stored, dims), geometry.dtype)
        v_data = T.match_buffer(var_v_data, (tokens, stored, dims), geometry.dtype)
        position_map = T.match_buffer(
            var_position_map, (tokens,), "int32", elem_offset=position_map_at
        )
        k_rows = T.decl_buffer((tokens * stored, dims), geometry.dtype, data=k_data.data)
        cache_rows = page_rows(pages, num_pages, geometry)
        if tokens > 0:
            layer = T.bind(T.Cast("int32", as_float32(k_data[0, hkv, 0])))
            assert layer < spec.num_layers, "the plan has no such layer"
            plan = PlanTable(spec)
            plan.load(layer)
            for token in T.parallel(tokens):
                if position_map[token] != NOWHERE:
                    writer = ShadowWriter(spec, features)
                    page = T.bind(position_map[token] // slots)
                    slot = T.bind(position_map[token] % slots)
                    for kv_head in range(hkv):
                        row = T.bind(key_row(page, kv_head, slot, geometry))
                        append_row(
                            cache_rows,
                            row,
                            k_data,
                            v_data,
                            token,
                            kv_head,
                            geometry,
                            features.lanes,
                        )
                        writer.write(
                            k_rows, token * stored + kv_head, kv_head, plan, cache_rows, page, slot
                        )

    return shadowattn_shadow_append
