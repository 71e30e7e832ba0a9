"""The lists alone: what sparse decode selects, for tests and evaluation.

The same parts as in `sparse_paged_decode`, stopped before the exact attention.
"""

from __future__ import annotations

from tvm import tirx
from tvm.script import tirx as T

from ..attention.page_table import KV_PLANES, page_rows
from ..features import CpuFeatures
from ..pilot.plan_table import PlanTable
from ..pilot.top_k import RowSelector
from ..spec import ShadowSpec
from .sparse_head import SparseHead


def sparse_decode_lists(spec: ShadowSpec, features: CpuFeatures) -> tirx.PrimFunc:
    """Which keys each head of one sequence's new token would attend to.

    Variables: `q` (1, Hq, D) and `pages` (num_pages, 2, Hs, page_size, D), dtype of the spec, of
    which the first ceil(num_keys / page_size), in order, hold the keys and their shadow; outputs
    `lists` (Hq, c) int32, c >= num_keys, and `counts` (Hq,) int32; `layer`, `num_keys` (at least 1)
    int32.
    `lists[h, : counts[h]]` ascend; entries beyond are undefined. A head that keeps everything lists
    everything, even where its neighbours don't.
    """
    geometry = spec.attention
    hq, stored = geometry.num_q_heads, geometry.stored_heads
    dims, slots = geometry.head_dim, geometry.page_size

    @T.prim_func(s_tir=True)
    def shadowattn_decode_lists(
        var_q: T.handle,  # (1, Hq, D)
        var_pages: T.handle,  # (num_pages, 2, Hs, page_size, D)
        var_lists: T.handle,  # (Hq, c)
        var_counts: T.handle,  # (Hq,)
        layer: T.int32,
        num_keys: T.int32,
    ) -> None:
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
        num_pages, capacity = T.int32(), T.int32()
        q = T.match_buffer(var_q, (1, hq, dims), geometry.dtype)
        pages = T.match_buffer(
            var_pages, (num_pages, KV_PLANES, stored, slots, dims), geometry.dtype
        )
        lists = T.match_buffer(var_lists, (hq, capacity), "int32")
        counts = T.match_buffer(var_counts, (hq,), "int32")
        q_rows = T.decl_buffer((hq, dims), geometry.dtype, data=q.data)
        cache_rows = page_rows(pages, num_pages, geometry)
        assert layer < spec.num_layers, "the plan has no such layer"

        plan = PlanTable(spec)
        plan.load(layer)
        page_ids = T.alloc_buffer((T.ceildiv(num_keys, slots),), "int32")
        for page in range(T.ceildiv(num_keys, slots)):
            page_ids[page] = page
        selector = RowSelector(features)
        selector.start()
        for head in T.parallel(hq):
            keep = T.bind(plan.keep_count(head, num_keys - 1))
            counts[head] = keep + 1
            if keep < num_keys - 1:
                sparse = SparseHead(spec, features, plan, page_ids, 0, num_keys, keep, selector)
                sparse.select(q_rows, head, head, cache_rows)
                for j in range(keep + 1):
                    lists[head, j] = sparse.indices[0, j]
            else:
                for j in range(num_keys):
                    lists[head, j] = j

    return shadowattn_decode_lists
