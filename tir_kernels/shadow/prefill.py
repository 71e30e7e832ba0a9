"""shadowAttn in the paged-prefill slot: pilot, select and attend, composed per head and query tile.

Per sequence of the batch: quantize the past keys once (`key_shadow`); then quantize the queries,
score them against the shadow, select the k best keys and attend to those exactly, in one task per
query tile and head (`query_task`) or, where several rows share a list, per list (`list_stages`).
A head that keeps its whole past runs dense, and so does everything under a causal mask, which the
runtime never asks for here.

Source: "Dynamic Sparse Attention on Mobile SoCs"; one thread does all stages of its task, in order,
unless `PipelineHeads` sends the stages of shared lists to different ones.
"""

from __future__ import annotations

from tvm import tirx
from tvm.script import tirx as T

from ..attention.page_table import KV_PLANES, page_rows, sequence_keys
from ..attention.paged_prefill_tile import PagedPrefillTile
from ..attention.tiles import attention_tile
from ..features import CpuFeatures
from ..pilot.chunk_queries import ChunkQueries
from ..pilot.key_shadow import KeyShadow
from ..pilot.plan_table import PlanTable
from ..pilot.score_rows import padded_keys
from ..simd.vector import Expr
from ..spec import ShadowSpec
from .list_stages import (
    ATTEND,
    PILOT,
    PIPELINE,
    STAGE,
    AttendStage,
    PilotStage,
    SharedLists,
)
from .npu_pilot import process_pilot
from .query_task import QueryTask
from .rest_mean import RestMean


def layer_id(sm_scale: Expr) -> Expr:
    """The layer in the runtime's `sm_scale` argument, which carries layer_id + sm_scale."""
    return T.Cast("int32", T.floor(sm_scale))


def shadow_paged_prefill(
    spec: ShadowSpec, features: CpuFeatures, *, npu: bool = False, alternate: bool = False
) -> tirx.PrimFunc:
    """shadowAttn of each sequence's new queries to the keys in its pages.

    With `npu`, just for shared lists and `PipelineHeads`, the pilots are those of the process, if
    it has them (`npu_pilot`). With `alternate`, which is no pipeline's, shared lists aren't in the
    plan's order of heads: heads change fastest, so that every thread has as much to do.

    Variables: `q`, `output` (tokens, Hq, D) and `pages` (num_pages, 2, Hs, page_size, D), dtype of
    the spec; `lse` (tokens, Hq) float32, base 2; int32: `q_indptr` (batch + 1,), where each
    sequence's queries start; `page_indptr` (batch + 1,), where its page ids start in `page_values`
    (used_pages,); `length_info` (batch,), the keys in its last page; `sm_scale`, layer_id + the
    softmax scale, of which only the layer is read. Sequences may have no queries or no pages.
    `causal`: 0 = every query sees all keys (what the runtime asks for), otherwise query i of n sees
    keys up to number i + keys - n, and all heads run dense.
    Computation, per sequence with n past keys, layer and head, with k = keep_count(n, ...):
    `S = Q8.K8^T` (int32, scales of the nearest buckets), to INT8 if the plan says so; T = the k
    largest per row, or of the votes of the rows that share a list (`pooling`), ties to the lower
    index; over T, exactly, `output = softmax(q.k * spec.sm_scale).v` and
    `lse = log2(sum(exp(q.k * sm_scale)))`; zeros and EMPTY_LSE where T is empty. If the plan says
    so, the softmax is also over n - k times the mean of a sample of the n keys, whose value is
    their mean value (`ShadowSpec.rest`). Rows outside `q_indptr` are left alone.
    Ignored: rotary_mode, rope_scale, rope_theta and the rope positions, because q and k arrive
    rotated (rope mode NORMAL).

    The parameters are those of the runtime's paged prefill slot (TVM,
    src/runtime/vm/attn_backend.h). A layer that the plan doesn't have is an error at run time.
    """
    geometry = spec.attention
    sizes = attention_tile(features)
    hq, stored = geometry.num_q_heads, geometry.stored_heads
    dims, slots = geometry.head_dim, geometry.page_size

    pilot = spec.pilot
    unit_heads = geometry.group_size if pilot.share_group else 1
    num_units = hq // unit_heads
    assert pilot.pooled or not npu, "lists for each query aren't pipelined"
    assert not (npu and alternate), "a pipeline has an order"

    @T.prim_func(s_tir=True)
    def shadowattn_paged_prefill(
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
        q = T.match_buffer(var_q, (tokens, hq, dims), geometry.dtype)
        q_indptr = T.match_buffer(var_q_indptr, (batch + 1,), "int32", elem_offset=q_indptr_at)
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
        T.match_buffer(var_q_rope_position, (tokens,), "int32", elem_offset=q_rope_at)
        output = T.match_buffer(var_output, (tokens, hq, dims), geometry.dtype)
        lse = T.match_buffer(var_lse, (tokens, hq), "float32")
        q_rows = T.decl_buffer((tokens * hq, dims), geometry.dtype, data=q.data)
        cache_rows = page_rows(pages, num_pages, geometry)
        assert layer_id(sm_scale) < spec.num_layers, "the plan has no such layer"

        plan = PlanTable(spec)
        queries = ChunkQueries(spec, features)
        plan.load(layer_id(sm_scale))
        process = process_pilot(spec, features, plan, npu)
        process.load(layer_id(sm_scale))
        for b in range(batch):
            seq_queries = T.bind(q_indptr[b + 1] - q_indptr[b])
            seq_keys = T.bind(
                sequence_keys(page_indptr[b], page_indptr[b + 1], length_info[b], slots)
            )
            num_tiles = T.bind(T.ceildiv(seq_queries, sizes.queries))
            # 1. The past keys' shadow, unless nothing will read it
            sparse_heads = T.alloc_buffer((1,), "int32")
            most_kept = T.alloc_buffer((1,), "int32")
            sparse_heads[0] = 0
            most_kept[0] = 0
            for head in range(hq):
                kept = T.bind(plan.keep_count(head, seq_keys))
                if T.And(causal == 0, kept < seq_keys):
                    sparse_heads[0] = sparse_heads[0] + T.int32(seq_queries > 0)
                    most_kept[0] = T.max(most_kept[0], kept)
            keys = KeyShadow(spec, features, T.if_then_else(sparse_heads[0] > 0, seq_keys, 0))
            rest = RestMean(spec, features, keys)
            if sparse_heads[0] > 0:
                keys.list_rows(page_values, page_indptr[b])
                keys.build(cache_rows, plan)
                rest.measure(cache_rows)
                queries.measure(q_rows, q_indptr[b], seq_queries, plan)
                process.plan_launches(queries, keys)
            # 2. Dense heads, and heads with a list for each query. Heads change fastest, so that a
            #    thread's range of tasks holds a mix of both, and neighbours share a KV head
            for task in T.parallel(num_tiles * hq):
                head = T.bind(task % hq)
                first = T.bind(task // hq * sizes.queries)
                tile_queries = T.bind(T.min(sizes.queries, seq_queries - first))
                keep = T.bind(plan.keep_count(head, seq_keys))
                if T.And(causal == 0, keep < seq_keys):
                    if not pilot.pooled:
                        sparse = QueryTask(spec, features, keys, plan, keep)
                        sparse.select(
                            q_rows, queries.buckets, head, q_indptr[b] + first, tile_queries
                        )
                        sparse.attend(
                            q_rows,
                            cache_rows,
                            head,
                            q_indptr[b] + first,
                            tile_queries,
                            output,
                            lse,
                            rest,
                        )
                else:
                    dense = PagedPrefillTile(geometry, sizes)
                    dense.run(
                        q,
                        cache_rows,
                        page_values,
                        page_indptr[b],
                        head,
                        q_indptr[b] + first,
                        tile_queries,
                        T.bind(
                            T.if_then_else(causal > 0, seq_keys - seq_queries + first + 1, seq_keys)
                        ),
                        T.bind(T.if_then_else(causal > 0, 1, 0)),
                        output,
                        lse,
                    )
            # 3. Shared lists
            if pilot.pooled:
                num_blocks = T.bind(T.ceildiv(seq_queries, pilot.query_block))
                lists = SharedLists(features, num_units * num_blocks, most_kept[0])
                process.make_room(num_units * num_blocks, padded_keys(keys, features))
                for item in T.parallel(num_units * num_blocks, annotations={PIPELINE: 1}):
                    head = T.bind(
                        item % num_units * unit_heads
                        if alternate
                        else plan.order[item // num_blocks] * unit_heads
                    )
                    block = T.bind(item // num_units if alternate else item % num_blocks)
                    first = T.bind(block * pilot.query_block)
                    block_queries = T.bind(T.min(pilot.query_block, seq_queries - first))
                    keep = T.bind(plan.keep_count(head, seq_keys))
                    is_sparse = T.bind(T.And(causal == 0, keep < seq_keys))
                    with T.attr(0, STAGE, PILOT):
                        if is_sparse:
                            if process.is_absent():
                                importance = T.alloc_buffer(
                                    (1, padded_keys(keys, features)), "int32"
                                )
                                votes = PilotStage(spec, features, keys, plan, importance, 0)
                                votes.run(
                                    q_rows,
                                    queries.buckets,
                                    head,
                                    unit_heads,
                                    q_indptr[b] + first,
                                    block_queries,
                                )
                                lists.select(item, keys, keep, importance, 0)
                            else:
                                process.run(
                                    q_rows,
                                    queries,
                                    keys,
                                    layer_id(sm_scale),
                                    q_indptr[b],
                                    seq_queries,
                                    item,
                                )
                                if process.has_delivered():
                                    lists.select(item, keys, keep, process.importance, item)
                    with T.attr(0, STAGE, ATTEND):
                        if is_sparse:
                            if process.has_delivered():
                                attention = AttendStage(spec, features, keys, lists, rest)
                                attention.run(
                                    item,
                                    q,
                                    cache_rows,
                                    head,
                                    unit_heads,
                                    q_indptr[b] + first,
                                    block_queries,
                                    output,
                                    lse,
                                )
        process.close()

    return shadowattn_paged_prefill
