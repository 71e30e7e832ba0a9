"""shadowAttn in the decode slot: one new token per sequence, a list of keys for every sparse head.

Per sequence the newest key is attended to in any case (it is what a chunk's own keys are in
prefill), and the others compete: the INT8 shadow in the pages is scored, the k largest scores are
kept, and those keys are attended to exactly. A KV head with a query head that keeps everything runs
dense for all of its query heads: its keys and values are read anyway, once for all of them.
"""

from __future__ import annotations

from tvm import tirx
from tvm.script import tirx as T

from ..attention.decode_splits import DecodeSplits, SplitParts
from ..attention.page_table import KV_PLANES, page_rows
from ..attention.tiles import decode_tile
from ..features import CpuFeatures
from ..pilot.plan_table import PlanTable
from ..pilot.top_k import RowSelector
from ..shadow.prefill import layer_id
from ..spec import ShadowSpec
from .sparse_head import SparseHead


def sparse_paged_decode(spec: ShadowSpec, features: CpuFeatures) -> tirx.PrimFunc:
    """Sparse attention of one query per sequence to the keys in its pages.

    Variables: as of `dense_paged_decode`, with pages that have shadow rows, filled by
    `shadow_append`; `sm_scale`, layer_id + the softmax scale, of which only the layer is read.
    Computation, per sequence with n keys and head, with k = keep_count(n - 1, ...):
    `S = Q8.K8^T` over the n - 1 older keys (int32; the scale of Q nearest to this query's own, the
    middle one of K), T = the k largest, ties to the lower index, and the newest key; over T,
    exactly, `output = softmax(q.k * spec.sm_scale).v` and `lse = log2(sum(exp(q.k * sm_scale)))`;
    zeros and EMPTY_LSE without keys. T is everything for a head whose KV head has a query head
    with k = n - 1. Lists are never shared, whatever the plan says of prefill, and scores are
    not requantized.
    Ignored: rotary_mode, rope_scale, rope_theta and the rope positions, because q and k arrive
    rotated (rope mode NORMAL).

    The parameters are those of the runtime's decode slot (TVM, src/runtime/vm/attn_backend.h). A
    layer that the plan doesn't have is an error at run time.
    """
    geometry = spec.attention
    assert geometry.shadow_rows > 0, "the pages have no room for a shadow"
    sizes = decode_tile(geometry, features)
    hq, hkv, stored = geometry.num_q_heads, geometry.num_kv_heads, geometry.stored_heads
    dims, slots, group = geometry.head_dim, geometry.page_size, geometry.group_size

    @T.prim_func(s_tir=True)
    def shadowattn_sparse_paged_decode(
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
        q = T.match_buffer(var_q, (batch, hq, dims), geometry.dtype)
        pages = T.match_buffer(
            var_pages, (num_pages, KV_PLANES, stored, slots, dims), geometry.dtype
        )
        page_indptr = T.match_buffer(
            var_page_indptr, (batch + 1,), "int32", elem_offset=page_indptr_at
        )
        page_values = T.match_buffer(
            var_page_values, (used_pages,), "int32", elem_offset=page_values_at
        )
        length_info = T.match_buffer(var_length_info, (batch,), "int32", elem_offset=length_info_at)
        T.match_buffer(var_k_rope_pos_offset, (batch,), "int32", elem_offset=k_rope_at)
        T.match_buffer(var_q_rope_position, (batch,), "int32", elem_offset=q_rope_at)
        output = T.match_buffer(var_output, (batch, hq, dims), geometry.dtype)
        lse = T.match_buffer(var_lse, (batch, hq), "float32")
        q_rows = T.decl_buffer((batch * hq, dims), geometry.dtype, data=q.data)
        cache_rows = page_rows(pages, num_pages, geometry)
        assert layer_id(sm_scale) < spec.num_layers, "the plan has no such layer"

        plan = PlanTable(spec)
        plan.load(layer_id(sm_scale))
        splits = DecodeSplits(geometry, sizes, batch, page_indptr, page_values, length_info)
        splits.count()
        # 1. Which KV heads run dense; the last element counts them
        dense = T.alloc_buffer((batch * hkv + 1,), "int32")
        dense[batch * hkv] = 0
        for item in range(batch * hkv):
            older = T.bind(splits.num_keys(item // hkv) - 1)
            dense[item] = 0
            for h in range(group):
                if plan.keep_count(item % hkv * group + h, older) >= older:
                    dense[item] = 1
            dense[batch * hkv] = dense[batch * hkv] + dense[item]
        # 2. The dense ones, in parts
        has_dense = T.bind(dense[batch * hkv] > 0)
        num_splits = T.bind(splits.indptr[batch])
        parts = SplitParts(splits, T.if_then_else(has_dense, splits.capacity(used_pages), 0))
        if has_dense:
            for task in T.parallel(num_splits * hkv):
                sequence = T.alloc_buffer((1,), "int32")
                splits.locate(task, sequence)
                if dense[sequence[0] * hkv + task % hkv] > 0:
                    parts.attend(task, sequence[0], q, cache_rows)
        # 3. The parts' sums, and the sparse heads
        selector = RowSelector(features)
        if dense[batch * hkv] < batch * hkv:
            selector.start()
        for item in T.parallel(batch * hq):
            b = T.bind(item // hq)
            head = T.bind(item % hq)
            if dense[b * hkv + head // group] > 0:
                parts.add_up(b, head, output, lse)
            else:
                num_keys = T.bind(splits.num_keys(b))
                sparse = SparseHead(
                    spec,
                    features,
                    plan,
                    page_values,
                    page_indptr[b],
                    num_keys,
                    plan.keep_count(head, num_keys - 1),
                    selector,
                )
                sparse.select(q_rows, item, head, cache_rows)
                sparse.attend(q, b, head, cache_rows, output, lse)

    return shadowattn_sparse_paged_decode
