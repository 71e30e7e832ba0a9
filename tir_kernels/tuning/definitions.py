"""What the workloads compute, as unscheduled TIR: the other half of a database's records.

MetaSchedule knows a workload by its definition. A schedule of ours changes nothing in it but the
annotations of its `BLOCK`, which name tile sizes; `kernels` makes the kernel that has them. Indices
are clamped to keys that are there, here as in the kernels.
"""

from __future__ import annotations

import tvm
from tvm import tirx
from tvm.script import tirx as T

from ..constants import (
    LOG2_E,
    PAGE_SIZE_TOKENS,
    QUANT_GROUP,
    QUANT_PER_WORD,
    QUANT_ZERO_POINT,
)
from ..linear.dequantize import NIBBLE_BITS, NIBBLE_MASK
from ..simd.vector import Expr
from .workloads import GemmWorkload, ListWorkload, Workload

ENTRY = "main"
"""The function's name, here and in modules to be measured: MetaSchedule runs no other."""

BLOCK = "products"
"""The block that carries the annotations: the one with most of the work."""

_LOWEST = -3.0e38
"""Where a maximum of float32 starts."""


def definition(workload: Workload) -> tvm.IRModule:
    """The workload's definition: static shapes, the arguments of the workload in their order."""
    if isinstance(workload, ListWorkload):
        function = _list_attention(workload)
    elif workload.spec.quantization == "q0f32":
        function = _gemm(workload)
    else:
        function = _quantized_gemm(workload)
    module = tvm.IRModule({ENTRY: function.with_attr("global_symbol", ENTRY)})
    # printed and read again, it has forgotten the file it was written in: a database holds the
    # whole definition, and is to be the same wherever we are installed
    return tvm.script.from_source(module.script())


def clamped_index(index: Expr, num_keys: int) -> Expr:
    """A key that is there, whatever the index; MetaSchedule's own inputs are random bits."""
    return T.min(T.max(index, 0), num_keys - 1)


def key_page_row(key: Expr) -> Expr:
    """The row of pages that holds a key; its value is `PAGE_SIZE_TOKENS` rows further on."""
    return key // PAGE_SIZE_TOKENS * (2 * PAGE_SIZE_TOKENS) + key % PAGE_SIZE_TOKENS


def _gemm(workload: GemmWorkload) -> tirx.PrimFunc:
    m, n, k = workload.tokens, workload.spec.out_features, workload.spec.in_features

    @T.prim_func(s_tir=True)
    def gemm(x_handle: T.handle, w_handle: T.handle, y_handle: T.handle) -> None:
        T.func_attr({"tirx.noalias": True})
        x = T.match_buffer(x_handle, (m, k), "float32")
        w = T.match_buffer(w_handle, (n, k), "float32")
        y = T.match_buffer(y_handle, (m, n), "float32")
        for i, j, r in T.grid(m, n, k):
            with T.sblock("products"):
                vi, vj, vr = T.axis.remap("SSR", [i, j, r])
                with T.init():
                    y[vi, vj] = T.float32(0)
                y[vi, vj] = y[vi, vj] + x[vi, vr] * w[vj, vr]

    return gemm


def _quantized_gemm(workload: GemmWorkload) -> tirx.PrimFunc:
    m, n, k = workload.tokens, workload.spec.out_features, workload.spec.in_features

    @T.prim_func(s_tir=True)
    def quantized_gemm(
        x_handle: T.handle, weight_handle: T.handle, scale_handle: T.handle, y_handle: T.handle
    ) -> None:
        T.func_attr({"tirx.noalias": True})
        x = T.match_buffer(x_handle, (m, k), "float32")
        q_weight = T.match_buffer(weight_handle, (n, k // QUANT_PER_WORD), "uint32")
        q_scale = T.match_buffer(scale_handle, (n, k // QUANT_GROUP), "float32")
        y = T.match_buffer(y_handle, (m, n), "float32")
        w = T.sblock_alloc_buffer((n, k), "float32")
        for j, r in T.grid(n, k):
            with T.sblock("weight"):
                vj, vr = T.axis.remap("SS", [j, r])
                w[vj, vr] = (
                    T.Cast(
                        "float32",
                        T.Cast(
                            "int32",
                            T.bitwise_and(
                                T.shift_right(
                                    q_weight[vj, vr // QUANT_PER_WORD],
                                    T.Cast("uint32", vr % QUANT_PER_WORD * NIBBLE_BITS),
                                ),
                                T.uint32(NIBBLE_MASK),
                            ),
                        )
                        - QUANT_ZERO_POINT,
                    )
                    * q_scale[vj, vr // QUANT_GROUP]
                )
        for i, j, r in T.grid(m, n, k):
            with T.sblock("products"):
                vi, vj, vr = T.axis.remap("SSR", [i, j, r])
                with T.init():
                    y[vi, vj] = T.float32(0)
                y[vi, vj] = y[vi, vj] + x[vi, vr] * w[vj, vr]

    return quantized_gemm


def _list_attention(workload: ListWorkload) -> tirx.PrimFunc:
    heads, dims, block = workload.heads, workload.head_dim, workload.block_queries
    keys, kept, lists = workload.keys, workload.kept, workload.lists
    queries = lists * block
    scale = workload.attention.sm_scale * LOG2_E

    @T.prim_func(s_tir=True)
    def list_attention(
        q_handle: T.handle,
        pages_handle: T.handle,
        indices_handle: T.handle,
        output_handle: T.handle,
        lse_handle: T.handle,
    ) -> None:
        T.func_attr({"tirx.noalias": True})
        q = T.match_buffer(q_handle, (queries, heads, dims), "float32")
        pages = T.match_buffer(pages_handle, (2 * keys, dims), "float32")
        indices = T.match_buffer(indices_handle, (lists, kept), "int32")
        output = T.match_buffer(output_handle, (queries, heads, dims), "float32")
        lse = T.match_buffer(lse_handle, (queries, heads), "float32")
        rows = T.sblock_alloc_buffer((lists, kept), "int32")
        scores = T.sblock_alloc_buffer((queries, heads, kept), "float32")
        largest = T.sblock_alloc_buffer((queries, heads), "float32")
        total = T.sblock_alloc_buffer((queries, heads), "float32")
        for i, j in T.grid(lists, kept):
            with T.sblock("rows"):
                vi, vj = T.axis.remap("SS", [i, j])
                rows[vi, vj] = key_page_row(clamped_index(indices[vi, vj], keys))
        for i, h, j, d in T.grid(queries, heads, kept, dims):
            with T.sblock("products"):
                vi, vh, vj, vd = T.axis.remap("SSSR", [i, h, j, d])
                with T.init():
                    scores[vi, vh, vj] = T.float32(0)
                scores[vi, vh, vj] = (
                    scores[vi, vh, vj]
                    + q[vi, vh, vd] * T.float32(scale) * pages[rows[vi // block, vj], vd]
                )
        for i, h, j in T.grid(queries, heads, kept):
            with T.sblock("largest"):
                vi, vh, vj = T.axis.remap("SSR", [i, h, j])
                with T.init():
                    largest[vi, vh] = T.float32(_LOWEST)
                largest[vi, vh] = T.max(largest[vi, vh], scores[vi, vh, vj])
        for i, h, j in T.grid(queries, heads, kept):
            with T.sblock("total"):
                vi, vh, vj = T.axis.remap("SSR", [i, h, j])
                with T.init():
                    total[vi, vh] = T.float32(0)
                total[vi, vh] = total[vi, vh] + T.exp2(scores[vi, vh, vj] - largest[vi, vh])
        for i, h, d, j in T.grid(queries, heads, dims, kept):
            with T.sblock("output"):
                vi, vh, vd, vj = T.axis.remap("SSSR", [i, h, d, j])
                with T.init():
                    output[vi, vh, vd] = T.float32(0)
                output[vi, vh, vd] = (
                    output[vi, vh, vd]
                    + T.exp2(scores[vi, vh, vj] - largest[vi, vh])
                    / total[vi, vh]
                    * pages[rows[vi // block, vj] + PAGE_SIZE_TOKENS, vd]
                )
        for i, h in T.grid(queries, heads):
            with T.sblock("lse"):
                vi, vh = T.axis.remap("SS", [i, h])
                lse[vi, vh] = largest[vi, vh] + T.log2(total[vi, vh])

    return list_attention
