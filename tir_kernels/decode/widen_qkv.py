"""A fused projection made as wide as a cache with shadow rows expects it, tagged with its layer.

The runtime checks that the projection has a head for every stored head of K and V, and tells
neither the append kernel nor the rotary one which layer they work for. The rows that the shadow
adds answer both: one of them carries the layer.
"""

from __future__ import annotations

from tvm import tirx
from tvm.script import tirx as T

from ..features import CpuFeatures
from ..simd.storage import as_stored
from ..simd.vector import Expr
from ..spec import AttentionSpec


def widen_qkv(spec: AttentionSpec, features: CpuFeatures) -> tirx.PrimFunc:
    """`qkv` with room for the shadow rows.

    Variables: `qkv` (tokens, Hq + 2 Hkv, D) and `wide` (tokens, Hq + 2 Hs, D), dtype of the spec;
    `layer` int64.
    Computation: of `wide`, q, k and v are copied, `wide[:, Hq + Hkv, 0]` is the layer, and the
    other rows beyond the KV heads are left alone. (float16 counts to 2,048 exactly.)
    """
    assert spec.shadow_rows > 0, "there is nothing to widen"
    num_q, num_kv, stored = spec.num_q_heads, spec.num_kv_heads, spec.stored_heads
    dims, lanes = spec.head_dim, features.lanes

    def vector(index: Expr) -> Expr:
        return T.ramp(index * lanes, 1, lanes)

    @T.prim_func(s_tir=True)
    def shadowattn_widen_qkv(
        var_qkv: T.handle,  # (tokens, Hq + 2 Hkv, D)
        layer: T.int64,
        var_wide: T.handle,  # (tokens, Hq + 2 Hs, D)
    ) -> None:
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
        tokens = T.int64()
        qkv = T.match_buffer(var_qkv, (tokens, num_q + 2 * num_kv, dims), spec.dtype)
        wide = T.match_buffer(var_wide, (tokens, num_q + 2 * stored, dims), spec.dtype)
        # Relax takes a kernel of one tensor without a block for a broken reshape.
        with T.sblock("root"):
            T.reads()
            T.writes()
            for token in T.parallel(tokens):
                for head in range(num_q + num_kv):
                    for v in range(dims // lanes):
                        wide[token, head, vector(v)] = qkv[token, head, vector(v)]
                wide[token, num_q + num_kv, 0] = as_stored(T.Cast("float32", layer), spec.dtype)
                for head in range(num_kv):
                    for v in range(dims // lanes):
                        wide[token, num_q + stored + head, vector(v)] = qkv[
                            token, num_q + num_kv + head, vector(v)
                        ]

    return shadowattn_widen_qkv
