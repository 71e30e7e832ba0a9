"""shadowAttn in the paged-prefill slot: pilot, select and attend, composed per head and query tile.

Per sequence of the batch: quantize the past keys once (`key_shadow`); then, one task per query tile
and head: quantize the queries, score them against the shadow, select the k best keys per query and
attend to those exactly. A head that keeps its whole past runs dense, and so does everything under a
causal mask, which the runtime never asks for here.

Source: "Dynamic Sparse Attention on Mobile SoCs"; one thread does all stages of its task, in order.
"""

from __future__ import annotations

from math import lcm

from tvm import tirx
from tvm.script import tirx as T

from .attention_tiles import attention_tile
from .features import CpuFeatures
from .int8_dot import int8_dot_method
from .key_shadow import KeyShadow
from .page_table import KV_PLANES, page_rows, sequence_keys, value_row_offset
from .paged_prefill_tile import PagedPrefillTile
from .pilot import PilotQueries
from .plan_table import PlanTable
from .quantize import AbsoluteMaximum, nearest_scale
from .sparse_tile import SparseTile
from .spec import ShadowSpec
from .top_k import MASKED_SCORE, RowSelector, index_slack, row_multiple
from .vector import Expr


def layer_id(sm_scale: Expr) -> Expr:
    """The layer in the runtime's `sm_scale` argument, which carries layer_id + sm_scale."""
    return T.Cast("int32", T.floor(sm_scale))


@T.meta_class
class ShadowTask:
    """One query tile of one sparse head. Made inside the task."""

    def __init__(
        self, spec: ShadowSpec, features: CpuFeatures, keys: KeyShadow, keep: Expr
    ) -> None:
        geometry = spec.attention
        dot = int8_dot_method(features)
        self.spec = geometry
        self.keys = keys
        self.keep = keep
        self.lanes = features.lanes
        self.register_queries = dot.register_queries
        row_keys = lcm(dot.register_keys, row_multiple(features))
        self.padded_keys = T.bind(T.ceildiv(keys.num_keys, row_keys) * row_keys)
        self.max_queries = attention_tile(features).queries
        self.pilot = PilotQueries(geometry.head_dim, dot, features.lanes)
        self.selector = RowSelector(features)
        self.scores = T.alloc_buffer((dot.register_queries, self.padded_keys), "int32")
        self.tile = SparseTile(geometry, features, self.max_queries, keep + index_slack(features))

    @T.inline
    def run(
        self,
        q_rows: T.Buffer,
        cache_rows: T.Buffer,
        q_scale: Expr,
        head: Expr,
        first_query: Expr,
        num_queries: Expr,
        output: T.Buffer,
        lse: T.Buffer,
    ) -> None:
        """Queries `first_query : first_query + num_queries` of `head`; q_rows (tokens * Hq, D)."""
        kv_head = T.bind(head // self.spec.group_size)
        self.selector.start()
        for group in range(T.ceildiv(num_queries, self.register_queries)):
            first = T.bind(group * self.register_queries)
            self.score(q_rows, q_scale, head, kv_head, first_query + first, num_queries - first)
            for i in range(T.min(self.register_queries, num_queries - first)):
                self.selector.select(
                    self.scores,
                    i,
                    self.padded_keys // self.lanes,
                    self.keys.num_keys,
                    self.keep,
                    self.tile.indices,
                    first + i,
                    self.tile.counts,
                )
        for i in range(num_queries):
            self.tile.load(q_rows, (first_query + i) * self.spec.num_q_heads + head, i)
        self.tile.attend(
            cache_rows,
            cache_rows,
            self.keys.row_table,
            kv_head * self.spec.page_size,
            kv_head * self.spec.page_size + value_row_offset(self.spec),
            num_queries,
            self.keys.num_keys,
        )
        for i in range(num_queries):
            self.tile.store(output, lse, first_query + i, head, i)

    @T.inline
    def score(
        self,
        q_rows: T.Buffer,
        q_scale: Expr,
        head: Expr,
        kv_head: Expr,
        first_query: Expr,
        num_queries: Expr,
    ) -> None:
        """`scores` of the `register_queries` queries from `first_query` on, of which there are
        `num_queries` (the last one is repeated), the keys' padding masked."""
        for i in range(self.register_queries):
            query = T.bind(first_query + T.min(i, num_queries - 1))
            self.pilot.quantize(q_rows, query * self.spec.num_q_heads + head, q_scale, i)
        self.pilot.score(
            self.keys.packed, kv_head * self.keys.num_blocks, self.keys.num_tiles, self.scores, 0
        )
        for i in range(self.register_queries):
            for pad in range(self.padded_keys - self.keys.num_keys):
                self.scores[i, self.keys.num_keys + pad] = T.int32(MASKED_SCORE)


def shadow_paged_prefill(spec: ShadowSpec, features: CpuFeatures) -> tirx.PrimFunc:
    """shadowAttn of each sequence's new queries to the keys in its pages.

    Variables: `q`, `output` (tokens, Hq, D) and `pages` (num_pages, 2, Hkv, page_size, D), dtype of
    the spec; `lse` (tokens, Hq) float32, base 2; int32: `q_indptr` (batch + 1,), where each
    sequence's queries start; `page_indptr` (batch + 1,), where its page ids start in `page_values`
    (used_pages,); `length_info` (batch,), the keys in its last page; `sm_scale`, layer_id + the
    softmax scale, of which only the layer is read. Sequences may have no queries or no pages.
    `causal`: 0 = every query sees all keys (what the runtime asks for), otherwise query i of n sees
    keys up to number i + keys - n, and all heads run dense.
    Computation, per sequence with n past keys, layer and head, with k = keep_count(n, ...):
    `S = Q8.K8^T` (int32, scales of the nearest buckets); T = the k largest per row, ties to the
    lower index; over T, exactly, `output = softmax(q.k * spec.sm_scale).v` and
    `lse = log2(sum(exp(q.k * sm_scale)))`; zeros and EMPTY_LSE where T is empty. Rows outside
    `q_indptr` are left alone.
    Ignored: rotary_mode, rope_scale, rope_theta and the rope positions, because q and k arrive
    rotated (rope mode NORMAL).

    The parameters are those of the runtime's paged prefill slot (TVM,
    src/runtime/vm/attn_backend.h). A layer that the plan doesn't have is an error at run time.
    """
    geometry = spec.attention
    sizes = attention_tile(features)
    hq, hkv = geometry.num_q_heads, geometry.num_kv_heads
    dims, slots = geometry.head_dim, geometry.page_size

    @T.inline
    def measure_queries(
        q_rows: T.Buffer, first_query: Expr, num_queries: Expr, plan: PlanTable, scales: T.Buffer
    ) -> None:
        """`scales[h]` = the bucket scale of query head h over the chunk."""
        for head in T.parallel(hq):
            largest = AbsoluteMaximum(dims, features.lanes)
            largest.clear()
            for i in range(num_queries):
                largest.include(q_rows, (first_query + i) * hq + head)
            scales[head] = nearest_scale(
                largest.value(),
                plan.q_scales[head, 0],
                plan.q_scales[head, 1],
                plan.q_scales[head, 2],
            )

    @T.prim_func(s_tir=True)
    def shadowattn_paged_prefill(
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
        q_scales = T.alloc_buffer((hq,), "float32")
        plan.load(layer_id(sm_scale))
        for b in range(batch):
            seq_queries = T.bind(q_indptr[b + 1] - q_indptr[b])
            seq_keys = T.bind(
                sequence_keys(page_indptr[b], page_indptr[b + 1], length_info[b], slots)
            )
            num_tiles = T.bind(T.ceildiv(seq_queries, sizes.queries))
            # 1. The past keys' shadow, unless nothing will read it
            sparse_heads = T.alloc_buffer((1,), "int32")
            sparse_heads[0] = 0
            for head in range(hq):
                if T.And(causal == 0, plan.keep_count(head, seq_keys) < seq_keys):
                    sparse_heads[0] = sparse_heads[0] + T.int32(seq_queries > 0)
            keys = KeyShadow(geometry, features, T.if_then_else(sparse_heads[0] > 0, seq_keys, 0))
            if sparse_heads[0] > 0:
                keys.list_rows(page_values, page_indptr[b])
                keys.build(cache_rows, plan)
                measure_queries(q_rows, q_indptr[b], seq_queries, plan, q_scales)
            # 2. Heads change fastest, so that a thread's range of tasks holds a mix of dense and
            #    sparse ones, and neighbours share their KV head's shadow
            for task in T.parallel(num_tiles * hq):
                head = T.bind(task % hq)
                first = T.bind(task // hq * sizes.queries)
                tile_queries = T.bind(T.min(sizes.queries, seq_queries - first))
                keep = T.bind(plan.keep_count(head, seq_keys))
                if T.And(causal == 0, keep < seq_keys):
                    sparse = ShadowTask(spec, features, keys, keep)
                    sparse.run(
                        q_rows,
                        cache_rows,
                        q_scales[head],
                        head,
                        q_indptr[b] + first,
                        tile_queries,
                        output,
                        lse,
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

    return shadowattn_paged_prefill
