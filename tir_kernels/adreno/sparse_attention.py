"""Sparse gather attention on Adreno: exact attention of each query over its own list of keys.

Source: "Dynamic Sparse Attention on Mobile SoCs", the sparse attention of the online stage.
"""

from __future__ import annotations

from tvm import tirx
from tvm.script import tirx as T

from ..spec import AttentionSpec
from .row_group import RowGroup, row_work_items


def sparse_attention(spec: AttentionSpec) -> tirx.PrimFunc:
    """The standalone stage: every query and head over its own list.

    Variables: `q`, `output` (m, Hq, D), dtype of the spec; `k_rows`, `v_rows` (n, Hkv, D), dtype of
    the spec; `indices` (m, Hq, c) int32 and `counts` (m, Hq) int32: the keys of a list;
    `lse` (m, Hq) float32, base 2.
    Computation: `output = softmax(q.k * spec.sm_scale).v`, `lse = log2(sum(exp(q.k * sm_scale)))`
    over a row's list; zeros and EMPTY_LSE for an empty one.
    """
    dim, hq, hkv = spec.head_dim, spec.num_q_heads, spec.num_kv_heads
    items = row_work_items(spec)

    @T.prim_func(s_tir=True)
    def shadowattn_adreno_sparse_attention(
        var_q: T.handle,  # (m, Hq, D)
        var_k: T.handle,  # (n, Hkv, D)
        var_v: T.handle,  # (n, Hkv, D)
        var_indices: T.handle,  # (m, Hq, c)
        var_counts: T.handle,  # (m, Hq)
        var_output: T.handle,  # (m, Hq, D)
        var_lse: T.handle,  # (m, Hq)
    ) -> None:
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
        num_queries, num_keys, capacity = T.int32(), T.int32(), T.int32()
        q = T.match_buffer(var_q, (num_queries, hq, dim), spec.dtype)
        k = T.match_buffer(var_k, (num_keys, hkv, dim), spec.dtype)
        v = T.match_buffer(var_v, (num_keys, hkv, dim), spec.dtype)
        indices = T.match_buffer(var_indices, (num_queries, hq, capacity), "int32")
        counts = T.match_buffer(var_counts, (num_queries, hq), "int32")
        output = T.match_buffer(var_output, (num_queries, hq, dim), spec.dtype)
        lse = T.match_buffer(var_lse, (num_queries, hq), "float32")
        q_rows = T.decl_buffer((num_queries * hq, dim), spec.dtype, data=q.data)
        k_rows = T.decl_buffer((num_keys * hkv, dim), spec.dtype, data=k.data)
        v_rows = T.decl_buffer((num_keys * hkv, dim), spec.dtype, data=v.data)
        out_rows = T.decl_buffer((num_queries * hq, dim), spec.dtype, data=output.data)
        lse_rows = T.decl_buffer((num_queries * hq,), "float32", data=lse.data)
        for query in T.thread_binding(num_queries, thread="blockIdx.x"):
            for head in T.thread_binding(hq, thread="blockIdx.y"):
                for item in T.thread_binding(items, thread="threadIdx.x"):
                    group = RowGroup(spec, item)
                    group.start(q_rows, query * hq + head)
                    group.attend(
                        k_rows,
                        v_rows,
                        0,
                        counts[query, head],
                        lambda i: indices[query, head, i] * hkv + head // spec.group_size,
                    )
                    group.finish(out_rows, lse_rows, query * hq + head)

    return shadowattn_adreno_sparse_attention
