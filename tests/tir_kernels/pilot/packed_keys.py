"""A kernel for tests: the keys that the pilot will score, as prefill packs them."""

from __future__ import annotations

from tvm import tirx
from tvm.script import tirx as T  # noqa: N812

from tir_kernels.attention.page_table import KV_PLANES, page_rows
from tir_kernels.features import CpuFeatures
from tir_kernels.pilot.key_shadow import KeyShadow
from tir_kernels.pilot.plan_table import PlanTable
from tir_kernels.spec import ShadowSpec


def packed_keys(spec: ShadowSpec, features: CpuFeatures) -> tirx.PrimFunc:
    """One sequence's keys, measured, quantized (or taken) and packed.

    Variables: `pages` (num_pages, 2, Hs, page_size, D), dtype of the spec; `page_values`
    (used_pages,) int32; outputs `packed` (Hkv * blocks, D / group, lanes * group) in the dot
    method's key type, blocks as `KeyShadow` has them, and `buckets` (Hkv,) int32; `layer`,
    `num_keys` int32.
    """
    geometry = spec.attention
    hkv, stored = geometry.num_kv_heads, geometry.stored_heads
    dims, slots = geometry.head_dim, geometry.page_size

    @T.prim_func(s_tir=True)
    def packed_keys_kernel(
        var_pages: T.handle,
        var_page_values: T.handle,
        var_packed: T.handle,
        var_buckets: T.handle,
        layer: T.int32,
        num_keys: T.int32,
    ) -> None:
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
        num_pages, used_pages, blocks = T.int32(), T.int32(), T.int32()
        pages = T.match_buffer(
            var_pages, (num_pages, KV_PLANES, stored, slots, dims), geometry.dtype
        )
        page_values = T.match_buffer(var_page_values, (used_pages,), "int32")
        keys = KeyShadow(spec, features, num_keys)
        dot = T.meta_var(keys.dot)
        packed = T.match_buffer(
            var_packed, (blocks, dims // dot.group, dot.lanes * dot.group), dot.key_dtype
        )
        buckets = T.match_buffer(var_buckets, (hkv,), "int32")
        cache_rows = page_rows(pages, num_pages, geometry)
        plan = PlanTable(spec)
        plan.load(layer)
        keys.list_rows(page_values, 0)
        keys.build(cache_rows, plan)
        for block, step, element in T.grid(blocks, dims // dot.group, dot.lanes * dot.group):
            packed[block, step, element] = keys.packed[block, step, element]
        for kv_head in range(hkv):
            buckets[kv_head] = keys.buckets[kv_head]

    return packed_keys_kernel
