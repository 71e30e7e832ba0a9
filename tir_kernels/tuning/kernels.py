"""The kernels that are measured: ours, with the tile of the features given."""

from __future__ import annotations

from tvm import tirx
from tvm.script import tirx as T

from ..constants import PAGE_SIZE_TOKENS
from ..features import CpuFeatures
from ..linear.matmul import linear
from ..shadow.list_tile import ListTile
from .definitions import clamped_index, key_page_row
from .workloads import ListWorkload, Workload


def measured_kernel(workload: Workload, features: CpuFeatures) -> tirx.PrimFunc:
    """A kernel that takes the workload's arguments, and computes what its definition says."""
    if isinstance(workload, ListWorkload):
        return _list_attention(workload, features)
    return linear(workload.spec, features)


def _list_attention(workload: ListWorkload, features: CpuFeatures) -> tirx.PrimFunc:
    heads, dims, block = workload.heads, workload.head_dim, workload.block_queries
    keys, kept, lists = workload.keys, workload.kept, workload.lists
    queries = lists * block
    attention, sizes = workload.attention, workload.tile(features)

    @T.prim_func(s_tir=True)
    def list_attention(
        q_handle: T.handle,
        pages_handle: T.handle,
        indices_handle: T.handle,
        output_handle: T.handle,
        lse_handle: T.handle,
    ) -> None:
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
        q = T.match_buffer(q_handle, (queries, heads, dims), "float32")
        pages = T.match_buffer(pages_handle, (2 * keys, dims), "float32")
        indices = T.match_buffer(indices_handle, (lists, kept), "int32")
        output = T.match_buffer(output_handle, (queries, heads, dims), "float32")
        lse = T.match_buffer(lse_handle, (queries, heads), "float32")
        row_table = T.alloc_buffer((keys,), "int32")
        clamped = T.alloc_buffer((1, kept), "int32")
        for key in range(keys):
            row_table[key] = key_page_row(key)
        for each in range(lists):
            for entry in range(kept):
                clamped[0, entry] = clamped_index(indices[each, entry], keys)
            tile = ListTile(attention, sizes)
            tile.run(
                q,
                pages,
                row_table,
                0,
                PAGE_SIZE_TOKENS,
                clamped,
                0,
                kept,
                0,
                heads,
                each * block,
                block,
                output,
                lse,
            )

    return list_attention
