"""Dense decode on CPUs: one new token per sequence against its pages, split over keys."""

from __future__ import annotations

from tvm import tirx
from tvm.script import tirx as T

from ..features import CpuFeatures
from ..spec import AttentionSpec
from .decode_splits import DecodeSplits, SplitParts
from .page_table import KV_PLANES, page_rows
from .tiles import decode_tile


def dense_paged_decode(spec: AttentionSpec, features: CpuFeatures) -> tirx.PrimFunc:
    """Attention of one query per sequence to the keys in its pages.

    Variables: `q`, `output` (batch, Hq, D) and `pages` (num_pages, 2, Hs, page_size, D), dtype of
    the spec; `lse` (batch, Hq) float32, base 2; int32: `page_indptr` (batch + 1,), where each
    sequence's page ids start in `page_values` (used_pages,); `length_info` (batch,), the keys in
    its last page. Sequences may have no pages.
    Computation: `output = softmax(q.k * spec.sm_scale).v`, `lse = log2(sum(exp(q.k * sm_scale)))`;
    zeros and EMPTY_LSE without keys.
    Ignored: rotary_mode, rope_scale, rope_theta and the rope positions, because q and k arrive
    rotated (rope mode NORMAL); sm_scale, because at run time it carries the layer id too.

    The parameters are those of the runtime's decode slot (TVM, src/runtime/vm/attn_backend.h).
    """
    sizes = decode_tile(spec, features)
    hq, hkv, stored = spec.num_q_heads, spec.num_kv_heads, spec.stored_heads
    dims, slots = spec.head_dim, spec.page_size

    @T.prim_func(s_tir=True)
    def shadowattn_dense_paged_decode(
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
        _k_rope = T.match_buffer(var_k_rope_pos_offset, (batch,), "int32", elem_offset=k_rope_at)
        _q_rope = T.match_buffer(var_q_rope_position, (batch,), "int32", elem_offset=q_rope_at)
        output = T.match_buffer(var_output, (batch, hq, dims), spec.dtype)
        lse = T.match_buffer(var_lse, (batch, hq), "float32")
        cache_rows = page_rows(pages, num_pages, spec)

        splits = DecodeSplits(spec, sizes, batch, page_indptr, page_values, length_info)
        splits.count()
        num_splits = T.bind(splits.indptr[batch])
        parts = SplitParts(splits, splits.capacity(used_pages))

        for task in T.parallel(num_splits * hkv):
            sequence = T.alloc_buffer((1,), "int32")
            splits.locate(task, sequence)
            b = T.bind(sequence[0])
            parts.attend(task, b, q, cache_rows)

        # Adding up is about 1/500 of the work: not worth a second launch.
        for b in range(batch):
            for head in range(hq):
                parts.add_up(b, head, output, lse)

    return shadowattn_dense_paged_decode
