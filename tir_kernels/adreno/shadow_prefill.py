"""shadowAttn in the paged-prefill slot on Adreno, the pilot included: launches one after another.

On a phone the pilot is the NPU's; inside an OpenCL library alone the GPU computes the same integers
in its place. First the plan's parameters, keys and queries as INT8; then, a pass of queries at a
time so that scores stay few, scores, votes of rows that share a list, lists, attention; last the
heads that run dense. The queue is in order, so a launch sees what the one before wrote.

Source: "Dynamic Sparse Attention on Mobile SoCs".
"""

from __future__ import annotations

from tvm import tirx
from tvm.script import tirx as T

from ..attention.page_table import (
    KV_PLANES,
    page_rows,
    value_row_offset,
)
from ..constants import MAX_SHARING_ROWS, RATIO_ONE
from ..pilot.pooling import ROW_BITS
from ..shadow.prefill import layer_id
from ..spec import ShadowSpec
from .block_group import BlockGroup, block_sizes
from .dense_heads import dense_heads
from .past import Past, Sequences
from .quantize import load_plan, quantize_keys, quantize_queries
from .query_tile import max_tiles
from .rest_mean import measure_rest
from .row_group import RowGroup, row_work_items
from .scores import ITEMS, score_rows, vote, weigh_row
from .shadow_scratch import ShadowScratch, queries_at_once, score_bound
from .top_k import ITEMS as TOP_K_ITEMS
from .top_k import TopK
from .vector import Expr


def _dense_layers(spec: ShadowSpec) -> list[int]:
    """Layers without a sparse head: nothing is quantized there."""
    return [
        layer
        for layer, heads in enumerate(spec.heads)
        if all(head.keep_ratio_q16 == RATIO_ONE for head in heads)
    ]


def is_sparse(spec: ShadowSpec, layer: Expr, causal: Expr) -> Expr:
    """Whether a layer has heads that may select; no head does under a causal mask."""
    sparse = causal == 0
    for dense in _dense_layers(spec):
        sparse = T.And(sparse, layer != dense)
    return sparse


def shadow_paged_prefill(spec: ShadowSpec) -> tirx.PrimFunc:
    """shadowAttn of each sequence's new queries to the keys in its pages.

    Variables, computation and what is ignored are those of `shadow.prefill.shadow_paged_prefill`,
    with q, pages and output in the dtype of the spec: the same lists to the bit, exact attention
    with float32 scores and sums. The work-spaces are `ShadowScratch`'s.
    """
    geometry, pilot = spec.attention, spec.pilot
    hq, stored = geometry.num_q_heads, geometry.stored_heads
    dims, slots = geometry.head_dim, geometry.page_size
    sizes = block_sizes(geometry)
    row_items = row_work_items(geometry)
    queries = queries_at_once(spec)
    unit = geometry.group_size if pilot.share_group else 1
    row_tiles = -(-pilot.query_block * unit // sizes.rows)
    # rows of votes are sums of at most MAX_SHARING_ROWS times 2^ROW_BITS, about
    bounds = (0, MAX_SHARING_ROWS << ROW_BITS) if pilot.pooled else None
    score_min, score_max = bounds or (-score_bound(spec), score_bound(spec))

    @T.prim_func(s_tir=True)
    def shadowattn_adreno_paged_prefill(
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
        out_rows = T.decl_buffer((tokens * hq, dims), geometry.dtype, data=output.data)
        lse_rows = T.decl_buffer((tokens * hq,), "float32", data=lse.data)
        cache_rows = page_rows(pages, num_pages, geometry)
        assert layer_id(sm_scale) < spec.num_layers, "the plan has no such layer"

        scratch = ShadowScratch(spec, batch, tokens, used_pages)
        sequences = T.meta_var(Sequences(batch, q_indptr, page_indptr, page_values, length_info))
        load_plan(scratch, layer_id(sm_scale))
        if is_sparse(spec, layer_id(sm_scale), causal):
            # 1. Keys and queries as the pilot takes them
            quantize_keys(
                scratch, cache_rows, page_indptr, page_values, length_info, batch, used_pages
            )
            quantize_queries(scratch, q_rows, q_indptr, batch, tokens)
            measure_rest(scratch, sequences, cache_rows)
            for turn in range(max_tiles(tokens, batch, 1, queries)):
                # 2. Scores: a head, so many keys to a group
                for bx in T.thread_binding(
                    T.ceildiv(used_pages * slots, ITEMS), thread="blockIdx.x"
                ):
                    for head in T.thread_binding(hq, thread="blockIdx.y"):
                        for item in T.thread_binding(ITEMS, thread="threadIdx.x"):
                            past = Past(scratch, sequences)
                            past.locate(turn, head)
                            score_rows(scratch, past, head, bx * ITEMS + item)
                if pilot.pooled:
                    # 3. Votes, where rows share a list
                    for row in T.thread_binding(queries, thread="blockIdx.x"):
                        for head in T.thread_binding(hq, thread="blockIdx.y"):
                            for item in T.thread_binding(ITEMS, thread="threadIdx.x"):
                                past = Past(scratch, sequences)
                                past.locate(turn, head)
                                weigh_row(scratch, past, head, row, item)
                    for bx in T.thread_binding(
                        T.ceildiv(used_pages * slots, ITEMS), thread="blockIdx.x"
                    ):
                        for number in T.thread_binding(scratch.num_lists, thread="blockIdx.y"):
                            for item in T.thread_binding(ITEMS, thread="threadIdx.x"):
                                past = Past(scratch, sequences)
                                past.locate(turn, number // scratch.blocks * unit)
                                vote(
                                    scratch,
                                    past,
                                    number // scratch.blocks,
                                    number % scratch.blocks,
                                    bx * ITEMS + item,
                                )
                # 4. Lists, one to a group
                for number in T.thread_binding(scratch.num_lists, thread="blockIdx.x"):
                    for item in T.thread_binding(TOP_K_ITEMS, thread="threadIdx.x"):
                        past = Past(scratch, sequences)
                        past.locate(turn, number // scratch.blocks * unit)
                        selector = TopK(item, score_min, score_max)
                        selector.select(
                            scratch.votes if pilot.pooled else scratch.scores,
                            number,
                            T.bind(
                                T.if_then_else(
                                    number % scratch.blocks * pilot.query_block < past.num_rows,
                                    past.ranked,
                                    0,
                                )
                            ),
                            past.keep,
                            scratch.lists,
                            number,
                        )
                # 5. Exact attention over the lists
                if pilot.pooled:
                    for number in T.thread_binding(scratch.num_lists, thread="blockIdx.x"):
                        for part_tile in T.thread_binding(row_tiles, thread="blockIdx.y"):
                            for row in T.thread_binding(sizes.rows, thread="threadIdx.y"):
                                for column in T.thread_binding(sizes.columns, thread="threadIdx.x"):
                                    past = Past(scratch, sequences)
                                    owner = T.meta_var(number // scratch.blocks)
                                    first_query = T.bind(
                                        number % scratch.blocks * pilot.query_block
                                    )
                                    past.locate(turn, owner * unit)
                                    first_row = T.meta_var(part_tile * sizes.rows)
                                    num_rows = T.bind(
                                        T.max(
                                            T.min(
                                                sizes.rows,
                                                T.min(
                                                    pilot.query_block, past.num_rows - first_query
                                                )
                                                * unit
                                                - first_row,
                                            ),
                                            0,
                                        )
                                    )
                                    count = T.bind(T.if_then_else(num_rows > 0, past.keep, 0))
                                    first = T.bind(
                                        (past.tile.first_query + past.tile.first + first_query) * hq
                                        + owner * unit
                                    )
                                    block = BlockGroup(geometry, sizes, row, column)
                                    block.start(
                                        q_rows,
                                        num_rows,
                                        lambda i: (
                                            first
                                            + (first_row + i) // unit * hq
                                            + (first_row + i) % unit
                                        ),
                                    )
                                    rest = T.meta_var(
                                        past.rest(owner * unit // geometry.group_size)
                                    )
                                    if rest is not None:
                                        block.begin_with(rest)
                                    block.limit[0] = count
                                    block.attend(
                                        cache_rows,
                                        cache_rows,
                                        value_row_offset(geometry),
                                        count,
                                        lambda i: past.cache_row(
                                            owner * unit // geometry.group_size,
                                            scratch.lists[number, i],
                                        ),
                                    )
                                    if row < num_rows:
                                        block.finish(
                                            out_rows,
                                            lse_rows,
                                            first
                                            + (first_row + row) // unit * hq
                                            + (first_row + row) % unit,
                                        )
                else:
                    for query in T.thread_binding(queries, thread="blockIdx.x"):
                        for head in T.thread_binding(hq, thread="blockIdx.y"):
                            for item in T.thread_binding(row_items, thread="threadIdx.x"):
                                past = Past(scratch, sequences)
                                past.locate(turn, head)
                                number = T.meta_var(head * queries + query)
                                group = RowGroup(geometry, item)
                                row_at = T.meta_var(past.tile.query_row(query, head, hq))
                                wanted = T.bind(query < past.num_rows)
                                group.start(q_rows, T.bind(T.if_then_else(wanted, row_at, head)))
                                rest = T.meta_var(past.rest(head // geometry.group_size))
                                if rest is not None:
                                    group.begin_with(rest)
                                group.attend(
                                    cache_rows,
                                    cache_rows,
                                    value_row_offset(geometry),
                                    T.bind(T.if_then_else(wanted, past.keep, 0)),
                                    lambda i: past.cache_row(
                                        head // geometry.group_size, scratch.lists[number, i]
                                    ),
                                )
                                group.finish(out_rows, lse_rows, row_at, wanted)
        # 6. Heads that run dense
        dense_heads(
            spec, scratch.plan, sequences, q_rows, cache_rows, out_rows, lse_rows, tokens, causal
        )

    return shadowattn_adreno_paged_prefill
