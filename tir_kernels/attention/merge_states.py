"""Merge two parts of an attention by their lse, in place."""

from __future__ import annotations

from typing import Any

from tvm import tirx
from tvm.script import tirx as T

from ..constants import EMPTY_LSE
from ..features import CpuFeatures
from ..simd.storage import as_float32, as_stored
from ..simd.vector import exp2, splat
from ..spec import AttentionSpec

Expr = Any  # a TIR expression; TVM ships no types


def merge_states(spec: AttentionSpec, features: CpuFeatures) -> tirx.PrimFunc:
    """Fold the attention over other keys into `v`, `s`.

    Variables: `v`, `v_other` (tokens, Hq, D), dtype of the spec, normalized outputs over two
    disjoint sets of keys; `s`, `s_other` (tokens, Hq) float32, their lse, base 2.
    Computation: `v = (2^s v + 2^s_other v_other) / (2^s + 2^s_other)`, `s = log2(2^s + 2^s_other)`.
    A part over no keys (zeros, EMPTY_LSE) leaves the other exactly as it is; two of them stay one.

    The parameters are those of the runtime's merge slot (TVM, src/runtime/vm/paged_kv_cache.cc).
    """
    hq, dims, lanes = spec.num_q_heads, spec.head_dim, features.lanes

    def vector(index: Expr) -> Expr:
        return T.ramp(index * lanes, 1, lanes)

    @T.prim_func(s_tir=True)
    def shadowattn_merge_states(
        var_v: T.handle, var_s: T.handle, var_v_other: T.handle, var_s_other: T.handle
    ) -> None:
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
        tokens = T.int32()
        v = T.match_buffer(var_v, (tokens, hq, dims), spec.dtype)
        s = T.match_buffer(var_s, (tokens, hq), "float32")
        v_other = T.match_buffer(var_v_other, (tokens, hq, dims), spec.dtype)
        s_other = T.match_buffer(var_s_other, (tokens, hq), "float32")
        for token in T.parallel(tokens):
            for head in range(hq):
                largest = T.bind(T.max(s[token, head], s_other[token, head]))
                # of an empty part the weight is 2^-126, which vanishes beside the other's 1
                weight = T.bind(exp2(s[token, head] - largest, 1))
                weight_other = T.bind(exp2(s_other[token, head] - largest, 1))
                share = T.bind(weight / (weight + weight_other))
                share_other = T.bind(weight_other / (weight + weight_other))
                for i in range(dims // lanes):
                    v[token, head, vector(i)] = as_stored(
                        as_float32(v[token, head, vector(i)]) * splat(share, lanes)
                        + as_float32(v_other[token, head, vector(i)]) * splat(share_other, lanes),
                        spec.dtype,
                    )
                s[token, head] = T.if_then_else(
                    largest > T.float32(EMPTY_LSE),
                    largest + T.log2(weight + weight_other),
                    T.float32(EMPTY_LSE),
                )

    return shadowattn_merge_states
