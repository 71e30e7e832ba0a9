"""The lists alone: what the shadowAttn prefill selects, for tests, evaluation and other devices.

The same parts as in `shadow_prefill`, stopped before the exact attention.
"""

from __future__ import annotations

from tvm import tirx
from tvm.script import tirx as T

from ..attention.page_table import KV_PLANES, page_rows
from ..attention.tiles import attention_tile
from ..features import CpuFeatures
from ..pilot.chunk_queries import ChunkQueries
from ..pilot.key_shadow import KeyShadow
from ..pilot.plan_table import PlanTable
from ..pilot.score_rows import padded_keys
from ..spec import ShadowSpec
from .list_stages import PilotStage, SharedLists
from .query_task import QueryTask


def shadow_lists(spec: ShadowSpec, features: CpuFeatures) -> tirx.PrimFunc:
    """Which past keys each row of one sequence's new queries would attend to.

    Variables: `q` (m, Hq, D) and `pages` (num_pages, 2, Hs, page_size, D), dtype of the spec, of
    which the first ceil(num_keys / page_size), in order, hold the keys; outputs `lists` (m, Hq, c)
    int32, c >= num_keys, and `counts` (m, Hq) int32; `layer`, `num_keys` (at least 1) int32.
    `lists[i, h, : counts[i, h]]` ascend; entries beyond are undefined. Rows that share a list each
    get it; a head that keeps everything lists everything.
    """
    geometry, pilot = spec.attention, spec.pilot
    hq, stored = geometry.num_q_heads, geometry.stored_heads
    dims, slots = geometry.head_dim, geometry.page_size
    unit_heads = geometry.group_size if pilot.share_group else 1
    num_units = hq // unit_heads
    block_queries = pilot.query_block if pilot.pooled else attention_tile(features).queries

    @T.prim_func(s_tir=True)
    def shadowattn_lists(
        var_q: T.handle,  # (m, Hq, D)
        var_pages: T.handle,  # (num_pages, 2, Hs, page_size, D)
        var_lists: T.handle,  # (m, Hq, c)
        var_counts: T.handle,  # (m, Hq)
        layer: T.int32,
        num_keys: T.int32,
    ) -> None:
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
        num_queries, num_pages, capacity = T.int32(), T.int32(), T.int32()
        q = T.match_buffer(var_q, (num_queries, hq, dims), geometry.dtype)
        pages = T.match_buffer(
            var_pages, (num_pages, KV_PLANES, stored, slots, dims), geometry.dtype
        )
        lists = T.match_buffer(var_lists, (num_queries, hq, capacity), "int32")
        counts = T.match_buffer(var_counts, (num_queries, hq), "int32")
        q_rows = T.decl_buffer((num_queries * hq, dims), geometry.dtype, data=q.data)
        cache_rows = page_rows(pages, num_pages, geometry)
        assert layer < spec.num_layers, "the plan has no such layer"

        plan = PlanTable(spec)
        queries = ChunkQueries(spec, features)
        plan.load(layer)
        keys = KeyShadow(spec, features, num_keys)
        page_ids = T.alloc_buffer((T.ceildiv(num_keys, slots),), "int32")
        for page in range(T.ceildiv(num_keys, slots)):
            page_ids[page] = page
        keys.list_rows(page_ids, 0)
        keys.build(cache_rows, plan)
        queries.measure(q_rows, 0, num_queries, plan)
        for task in T.parallel(T.ceildiv(num_queries, block_queries) * num_units):
            head = T.bind(task % num_units * unit_heads)
            first = T.bind(task // num_units * block_queries)
            rows = T.bind(T.min(block_queries, num_queries - first))
            keep = T.bind(plan.keep_count(head, num_keys))
            if pilot.pooled:
                importance = T.alloc_buffer((1, padded_keys(keys, features)), "int32")
                votes = PilotStage(spec, features, keys, plan, importance, 0)
                votes.run(q_rows, queries.buckets, head, unit_heads, first, rows)
                pooled = SharedLists(features, 1, keep)
                pooled.select(0, keys, keep, importance, 0)
                for h in range(unit_heads):
                    for i in range(rows):
                        counts[first + i, head + h] = keep
                        for j in range(keep):
                            lists[first + i, head + h, j] = pooled.indices[0, j]
            else:
                single = QueryTask(spec, features, keys, plan, keep)
                single.select(q_rows, queries.buckets, head, first, rows)
                for i in range(rows):
                    counts[first + i, head] = keep
                    for j in range(keep):
                        lists[first + i, head, j] = single.tile.indices[i, j]

    return shadowattn_lists
