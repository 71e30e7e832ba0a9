"""NPU-Full in the paged-prefill slot: the whole attention with static INT8 operands (paper,
baselines).

Queries, keys and values have one static scale a layer each, probabilities the static scale 1/255.
Scores stay INT32 until the softmax, which is computed in float, and the output is float: an NPU
that keeps those in INT8 too loses more.
"""

from __future__ import annotations

from tvm import tirx
from tvm.script import tirx as T

from ..attention.page_table import KV_PLANES, page_rows, sequence_keys
from ..attention.tiles import attention_tile
from ..constants import RATIO_ONE
from ..features import CpuFeatures
from ..pilot.key_shadow import KeyShadow
from ..pilot.plan_table import PlanTable
from ..pilot.score_rows import padded_keys
from ..shadow.prefill import layer_id
from ..spec import HeadParameters, ShadowSpec, StaticInt8Spec
from .static_task import StaticScales, StaticTask
from .static_values import PackedValues


def _as_pilot(spec: StaticInt8Spec) -> ShadowSpec:
    """The pilot that scores alike: a single bucket is a static scale."""
    heads = tuple(
        (HeadParameters(q_scale, k_scale, RATIO_ONE),) * spec.attention.num_q_heads
        for q_scale, k_scale in zip(spec.q_scales, spec.k_scales, strict=True)
    )
    return ShadowSpec(spec.attention, heads, bucket_sigma=0.5, k_min=1, buckets_per_axis=1)


def static_int8_paged_prefill(spec: StaticInt8Spec, features: CpuFeatures) -> tirx.PrimFunc:
    """Attention in INT8 of each sequence's new queries to the keys in its pages.

    Variables and what is ignored of them: see `shadow.prefill.shadow_paged_prefill`.
    Computation, per layer: `P = round(255 * softmax(Q8.K8^T * score_scale))`,
    `output = P.V8 * v_scale / 255`, `lse = log2(sum(exp(Q8.K8^T * score_scale)))`; zeros and
    EMPTY_LSE where a query sees no key.
    """
    geometry = spec.attention
    pilot = _as_pilot(spec)
    sizes = attention_tile(features)
    hq, hkv = geometry.num_q_heads, geometry.num_kv_heads
    dims, slots = geometry.head_dim, geometry.page_size

    @T.prim_func(s_tir=True)
    def shadowattn_static_int8_paged_prefill(
        var_q: T.handle,  # (tokens, Hq, D)
        var_q_indptr: T.handle,  # (batch + 1,)
        var_pages: T.handle,  # (num_pages, 2, Hkv, page_size, D)
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
        q = T.match_buffer(var_q, (tokens, hq, dims), geometry.dtype)
        q_indptr = T.match_buffer(var_q_indptr, (batch + 1,), "int32", elem_offset=q_indptr_at)
        pages = T.match_buffer(var_pages, (num_pages, KV_PLANES, hkv, slots, dims), geometry.dtype)
        page_indptr = T.match_buffer(
            var_page_indptr, (batch + 1,), "int32", elem_offset=page_indptr_at
        )
        page_values = T.match_buffer(
            var_page_values, (used_pages,), "int32", elem_offset=page_values_at
        )
        length_info = T.match_buffer(var_length_info, (batch,), "int32", elem_offset=length_info_at)
        T.match_buffer(var_k_rope_pos_offset, (batch,), "int32", elem_offset=k_rope_at)
        T.match_buffer(var_q_rope_position, (tokens,), "int32", elem_offset=q_rope_at)
        output = T.match_buffer(var_output, (tokens, hq, dims), geometry.dtype)
        lse = T.match_buffer(var_lse, (tokens, hq), "float32")
        q_rows = T.decl_buffer((tokens * hq, dims), geometry.dtype, data=q.data)
        cache_rows = page_rows(pages, num_pages, geometry)
        assert layer_id(sm_scale) < spec.num_layers, "there are no scales for such a layer"

        plan = PlanTable(pilot)
        scales = StaticScales(spec)
        q_buckets = T.alloc_buffer((hq,), "int32")
        plan.load(layer_id(sm_scale))
        scales.load(layer_id(sm_scale))
        for head in range(hq):
            q_buckets[head] = 0
        for b in range(batch):
            seq_queries = T.bind(q_indptr[b + 1] - q_indptr[b])
            seq_keys = T.bind(
                sequence_keys(page_indptr[b], page_indptr[b + 1], length_info[b], slots)
            )
            # 1. Keys and values in INT8
            keys = KeyShadow(pilot, features, T.if_then_else(seq_queries > 0, seq_keys, 0))
            values = PackedValues(geometry, features, keys, T.bind(padded_keys(keys, features)))
            if seq_queries > 0:
                keys.list_rows(page_values, page_indptr[b])
                for kv_head in range(hkv):
                    keys.buckets[kv_head] = 0
                for task in T.parallel(hkv * keys.num_segments):
                    keys.pack(cache_rows, plan, task)
                values.build(cache_rows, scales.value)
            # 2. Attention
            for task in T.parallel(T.ceildiv(seq_queries, sizes.queries) * hq):
                first = T.bind(task // hq * sizes.queries)
                tile = StaticTask(pilot, features, keys, values, plan, scales)
                tile.run(
                    q_rows,
                    q_buckets,
                    T.bind(task % hq),
                    q_indptr[b] + first,
                    T.bind(T.min(sizes.queries, seq_queries - first)),
                    T.bind(
                        T.if_then_else(causal > 0, seq_keys - seq_queries + first + 1, seq_keys)
                    ),
                    T.bind(T.if_then_else(causal > 0, 1, 0)),
                    output,
                    lse,
                )

    return shadowattn_static_int8_paged_prefill
