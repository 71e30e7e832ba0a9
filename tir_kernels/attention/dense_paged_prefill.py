"""Dense prefill on CPUs, a chunk of new tokens against its sequences' older pages."""

from __future__ import annotations

from tvm import tirx
from tvm.script import tirx as T

from ..features import CpuFeatures
from ..spec import AttentionSpec
from .page_table import KV_PLANES, page_rows, sequence_keys
from .paged_prefill_tile import PagedPrefillTile
from .query_tasks import count_tasks, dealt_tile, locate_task, query_tiles
from .tiles import attention_tile


def dense_paged_prefill(spec: AttentionSpec, features: CpuFeatures) -> tirx.PrimFunc:
    """Attention of each sequence's new queries to the keys in its pages.

    Variables: `q`, `output` (tokens, Hq, D) and `pages` (num_pages, 2, Hs, page_size, D), dtype of
    the spec; `lse` (tokens, Hq) float32, base 2; int32: `q_indptr` (batch + 1,), where each
    sequence's queries start; `page_indptr` (batch + 1,), where its page ids start in `page_values`
    (used_pages,); `length_info` (batch,), the keys in its last page. Sequences may have no queries
    or no pages. `causal`: 0 = every query sees all keys (what the runtime asks for), otherwise
    query i of n sees keys up to number i + keys - n.
    Computation: `output = softmax(q.k * spec.sm_scale).v`, `lse = log2(sum(exp(q.k * sm_scale)))`;
    zeros and EMPTY_LSE where a query sees no key. Rows outside `q_indptr` are left alone.
    Ignored: rotary_mode, rope_scale, rope_theta and the rope positions, because q and k arrive
    rotated (rope mode NORMAL); sm_scale, because at run time it carries the layer id too.

    The parameters are those of the runtime's paged prefill slot (TVM,
    src/runtime/vm/attn_backend.h).
    """
    sizes = attention_tile(features)
    hq, stored, dims, slots = spec.num_q_heads, spec.stored_heads, spec.head_dim, spec.page_size

    @T.prim_func(s_tir=True)
    def shadowattn_dense_paged_prefill(
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
        _k_rope = T.match_buffer(var_k_rope_pos_offset, (batch,), "int32", elem_offset=k_rope_at)
        _q_rope = T.match_buffer(var_q_rope_position, (tokens,), "int32", elem_offset=q_rope_at)
        output = T.match_buffer(var_output, (tokens, hq, dims), spec.dtype)
        lse = T.match_buffer(var_lse, (tokens, hq), "float32")
        cache_rows = page_rows(pages, num_pages, spec)
        tasks = T.alloc_buffer((1,), "int32")
        count_tasks(tasks, q_indptr, batch, spec, sizes)
        for task in T.parallel(tasks[0]):
            sequence = T.alloc_buffer((1,), "int32")
            rest = T.alloc_buffer((1,), "int32")
            locate_task(task, sequence, rest, q_indptr, spec, sizes)
            b = T.bind(sequence[0])
            tiles = T.bind(query_tiles(q_indptr, b, sizes))
            first = T.bind(dealt_tile(rest[0] % tiles, tiles) * sizes.queries)
            seq_queries = T.bind(q_indptr[b + 1] - q_indptr[b])
            seq_keys = T.bind(
                sequence_keys(page_indptr[b], page_indptr[b + 1], length_info[b], slots)
            )

            tile = PagedPrefillTile(spec, sizes)
            tile.run(
                q,
                cache_rows,
                page_values,
                first_page=page_indptr[b],
                head=T.bind(rest[0] // tiles),
                first_query=q_indptr[b] + first,
                num_queries=T.bind(T.min(sizes.queries, seq_queries - first)),
                first_limit=T.bind(
                    T.if_then_else(causal > 0, seq_keys - seq_queries + first + 1, seq_keys)
                ),
                limit_step=T.bind(T.if_then_else(causal > 0, 1, 0)),
                output=output,
                lse=lse,
            )

    return shadowattn_dense_paged_prefill
