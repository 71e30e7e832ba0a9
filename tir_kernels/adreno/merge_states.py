"""Merge two parts of an attention on Adreno: a work-group to each row, a vector to each work-item.

TVM's own kernel lets every work-item of a row write the row's new lse while others have yet to read
the old one (see docs/upstream/merge-state-race.md).
"""

from __future__ import annotations

from tvm import tirx
from tvm.script import tirx as T

from ..constants import EMPTY_LSE
from ..spec import AttentionSpec
from .limits import VECTOR
from .vector import barrier, floats, part, splat


def merge_states(spec: AttentionSpec) -> tirx.PrimFunc:
    """Fold the attention over other keys into `v`, `s`.

    Variables and computation are those of `attention.merge_states`, with `v` and `v_other` in the
    dtype of the spec.
    """
    hq, dims = spec.num_q_heads, spec.head_dim

    @T.prim_func(s_tir=True)
    def shadowattn_adreno_merge_states(
        var_v: T.handle,  # (tokens, Hq, D)
        var_s: T.handle,  # (tokens, Hq)
        var_v_other: T.handle,  # (tokens, Hq, D)
        var_s_other: T.handle,  # (tokens, Hq)
    ) -> None:
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
        tokens = T.int32()
        v = T.match_buffer(var_v, (tokens, hq, dims), spec.dtype)
        s = T.match_buffer(var_s, (tokens, hq), "float32")
        v_other = T.match_buffer(var_v_other, (tokens, hq, dims), spec.dtype)
        s_other = T.match_buffer(var_s_other, (tokens, hq), "float32")
        for token in T.thread_binding(tokens, thread="blockIdx.x"):
            for head in T.thread_binding(hq, thread="blockIdx.y"):
                for item in T.thread_binding(dims // VECTOR, thread="threadIdx.x"):
                    lse = T.alloc_buffer((2,), "float32", scope="shared")
                    weights = T.alloc_buffer((2,), "float32", scope="local")
                    if item == 0:  # who will replace it is the only one to read it
                        lse[0] = s[token, head]
                        lse[1] = s_other[token, head]
                    barrier()
                    largest = T.bind(T.max(lse[0], lse[1]))
                    # of an empty part the weight is 0, as the other's lse is so much larger
                    weights[0] = T.exp2(lse[0] - largest)
                    weights[1] = T.exp2(lse[1] - largest)
                    total = T.bind(weights[0] + weights[1])
                    v[token, head, part(item)] = T.Cast(
                        f"{spec.dtype}x{VECTOR}",
                        floats(v[token, head, part(item)]) * splat(weights[0] / total)
                        + floats(v_other[token, head, part(item)]) * splat(weights[1] / total),
                    )
                    if item == 0:
                        s[token, head] = T.if_then_else(
                            largest > T.float32(EMPTY_LSE),
                            largest + T.log2(total),
                            T.float32(EMPTY_LSE),
                        )

    return shadowattn_adreno_merge_states
