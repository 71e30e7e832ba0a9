"""The paper's sparse baselines in the paged-prefill slot: shadowAttn's budget, other selections.

A head attends exactly to what its selection takes of the past; a head that keeps everything runs
dense, and so does everything under a causal mask. One thread does all of a task.
"""

from __future__ import annotations

from typing import Protocol

from tvm import tirx
from tvm.script import tirx as T

from ..attention.page_table import KV_PLANES, list_page_rows, page_rows, sequence_keys
from ..attention.paged_prefill_tile import PagedPrefillTile
from ..attention.tiles import attention_tile
from ..features import CpuFeatures
from ..pilot.plan_table import PlanTable
from ..shadow.prefill import layer_id
from ..simd.vector import Expr
from ..spec import AttentionSpec, ShadowSpec
from .block_selection import BlockSelection
from .exact_selection import ExactSelection


class Selection(Protocol):
    """How keys are chosen, of one sequence's past. Made inside the PrimFunc, outside parallel
    loops."""

    def __init__(
        self, spec: AttentionSpec, features: CpuFeatures, row_table: T.Buffer, num_keys: Expr
    ) -> None:
        """K of key j and KV head h is in row `row_table[j] + h * page_size` of the cache's rows."""

    @staticmethod
    def block_queries(features: CpuFeatures) -> int:
        """Queries of one task."""

    def build(self, cache_rows: T.Buffer) -> None:
        """What all tasks share. An inline."""

    def run(
        self,
        q: T.Buffer,
        q_rows: T.Buffer,
        cache_rows: T.Buffer,
        head: Expr,
        keep: Expr,
        first_query: Expr,
        num_queries: Expr,
        output: T.Buffer,
        lse: T.Buffer,
    ) -> None:
        """A task: `output` and `lse` of at most `block_queries` queries of one head, each over
        `keep` keys, 0 < keep < num_keys. q (tokens, Hq, D), q_rows the same as (tokens * Hq, D).
        An inline."""


def exact_sparse_paged_prefill(spec: ShadowSpec, features: CpuFeatures) -> tirx.PrimFunc:
    """C/G-Sparse: over each query's keys of the largest float32 q.k, ties to the lower index."""
    return _selective_paged_prefill(spec, features, ExactSelection)


def block_sparse_paged_prefill(spec: ShadowSpec, features: CpuFeatures) -> tirx.PrimFunc:
    """C/G-Block-Sparse: over the keys of the 64-key blocks whose means agree most with the mean of
    the 64 queries."""
    return _selective_paged_prefill(spec, features, BlockSelection)


def _selective_paged_prefill(
    spec: ShadowSpec, features: CpuFeatures, selection: type[Selection]
) -> tirx.PrimFunc:
    """A selection in the slot.

    Variables and what is ignored of them: see `shadow.prefill.shadow_paged_prefill`. Of the plan,
    only the budget is read. Computation, per sequence with n past keys, layer and head, with
    k = keep_count(n, ...): T = k keys of each query by the selection, all where k = n or under a
    causal mask; over T `output = softmax(q.k * sm_scale).v` and
    `lse = log2(sum(exp(q.k * sm_scale)))`; zeros and EMPTY_LSE where T is empty.
    """
    geometry = spec.attention
    sizes = attention_tile(features)
    hq, hkv = geometry.num_q_heads, geometry.num_kv_heads
    dims, slots = geometry.head_dim, geometry.page_size
    block_queries = selection.block_queries(features)

    @T.prim_func(s_tir=True)
    def shadowattn_selective_paged_prefill(
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
        assert layer_id(sm_scale) < spec.num_layers, "the plan has no such layer"

        plan = PlanTable(spec)
        plan.load(layer_id(sm_scale))
        for b in range(batch):
            seq_queries = T.bind(q_indptr[b + 1] - q_indptr[b])
            seq_keys = T.bind(
                sequence_keys(page_indptr[b], page_indptr[b + 1], length_info[b], slots)
            )
            # 1. What the sparse heads share, unless there are none
            sparse_heads = T.alloc_buffer((1,), "int32")
            sparse_heads[0] = 0
            for head in range(hq):
                if T.And(causal == 0, plan.keep_count(head, seq_keys) < seq_keys):
                    sparse_heads[0] = sparse_heads[0] + T.int32(seq_queries > 0)
            num_keys = T.bind(T.if_then_else(sparse_heads[0] > 0, seq_keys, 0))
            row_table = T.alloc_buffer((num_keys,), "int32")
            chosen = selection(geometry, features, row_table, num_keys)
            if sparse_heads[0] > 0:
                list_page_rows(
                    row_table, num_keys, page_values, page_indptr[b], 0, 0, num_keys, geometry
                )
                chosen.build(cache_rows)
            # 2. Dense heads
            for task in T.parallel(T.ceildiv(seq_queries, sizes.queries) * hq):
                head = T.bind(task % hq)
                first = T.bind(task // hq * sizes.queries)
                if T.Or(causal > 0, plan.keep_count(head, seq_keys) == seq_keys):
                    dense = PagedPrefillTile(geometry, sizes)
                    dense.run(
                        q,
                        cache_rows,
                        page_values,
                        page_indptr[b],
                        head,
                        q_indptr[b] + first,
                        T.bind(T.min(sizes.queries, seq_queries - first)),
                        T.bind(
                            T.if_then_else(causal > 0, seq_keys - seq_queries + first + 1, seq_keys)
                        ),
                        T.bind(T.if_then_else(causal > 0, 1, 0)),
                        output,
                        lse,
                    )
            # 3. Sparse heads
            for task in T.parallel(T.ceildiv(seq_queries, block_queries) * hq):
                head = T.bind(task % hq)
                first = T.bind(task // hq * block_queries)
                keep = T.bind(plan.keep_count(head, seq_keys))
                if T.And(causal == 0, keep < seq_keys):
                    chosen.run(
                        q,
                        q_rows,
                        cache_rows,
                        head,
                        keep,
                        q_indptr[b] + first,
                        T.bind(T.min(block_queries, seq_queries - first)),
                        output,
                        lse,
                    )

    return shadowattn_selective_paged_prefill
