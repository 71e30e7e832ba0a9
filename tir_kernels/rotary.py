"""Split of the fused QKV projection with rotary position embedding.

The frequencies are float32 constants computed the way Hugging Face's reference computes them, and
cos and sin are taken once per (token, frequency) rather than once per head and element.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from tvm import tirx
from tvm.script import tirx as T

from .simd.storage import as_float32, as_stored
from .simd.vector import Expr
from .spec import AttentionSpec, SpecError


@dataclass(frozen=True)
class Llama3Scaling:
    """Llama 3's frequency scaling: long wavelengths are divided by `factor`, short ones kept,
    those in between interpolated (Hugging Face rope type `llama3`)."""

    factor: float
    low_freq_factor: float
    high_freq_factor: float
    original_max_position_embeddings: int

    def __post_init__(self) -> None:
        if not self.high_freq_factor > self.low_freq_factor > 0 or self.factor <= 0:
            raise SpecError(
                "expected factor > 0 and high_freq_factor > low_freq_factor > 0, got "
                f"{self.factor}, {self.high_freq_factor}, {self.low_freq_factor}"
            )


def rotary_frequencies(
    head_dim: int, theta: float, scaling: Llama3Scaling | None
) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """Angular frequencies (head_dim / 2,) float32, in radians per token."""
    exponents = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
    frequencies = (1.0 / np.float32(theta) ** exponents).astype(np.float32)
    if scaling is None:
        return frequencies
    context = scaling.original_max_position_embeddings
    wavelengths = 2 * math.pi / frequencies
    smooth = (context / wavelengths - scaling.low_freq_factor) / (
        scaling.high_freq_factor - scaling.low_freq_factor
    )
    smooth = np.clip(smooth, 0.0, 1.0)
    scaled = (1 - smooth) * frequencies / scaling.factor + smooth * frequencies
    return np.asarray(scaled, dtype=np.float32)


def split_rotary(spec: AttentionSpec, theta: float, scaling: Llama3Scaling | None) -> tirx.PrimFunc:
    """The runtime's split-and-rotate slot.

    Variables: `qkv` (tokens, Hq + 2 Hs, D), `q` (tokens, Hq, D), `k`, `v` (tokens, Hs, D), dtype of
    the spec; `position_map` (tokens,) int32, each token's position in its sequence; `apply_rope`
    0 only splits.
    Where more heads are stored (Hs) than KV heads, the first value of k's first row beyond them,
    the layer's tag (see `decode.widen_qkv`), is handed on, and nothing else of those rows.
    Computation: with half = D / 2 and a = position * frequency[i], for q and k heads
    `out[i] = x[i] cos a - x[i + half] sin a`, `out[i + half] = x[i + half] cos a + x[i] sin a`.
    """
    num_q, num_kv, dim = spec.num_q_heads, spec.num_kv_heads, spec.head_dim
    half = dim // 2
    stored = spec.stored_heads
    fused_heads = num_q + 2 * stored
    frequencies = [float(f) for f in rotary_frequencies(dim, theta, scaling)]

    def turn(angle: T.Buffer, position: Expr) -> None:
        # plain Python, run while the kernel is parsed: one store per frequency, constants inline
        for i, frequency in enumerate(frequencies):
            T.buffer_store(angle, position * T.float32(frequency), [i])

    @T.inline
    def rotate(
        out: T.Buffer,
        token: Expr,
        head: Expr,
        qkv: T.Buffer,
        fused_head: Expr,
        cosine: T.Buffer,
        sine: T.Buffer,
    ) -> None:
        for i in T.vectorized(half):
            out[token, head, i] = as_stored(
                as_float32(qkv[token, fused_head, i]) * cosine[i]
                - as_float32(qkv[token, fused_head, half + i]) * sine[i],
                spec.dtype,
            )
        for i in T.vectorized(half):
            out[token, head, half + i] = as_stored(
                as_float32(qkv[token, fused_head, half + i]) * cosine[i]
                + as_float32(qkv[token, fused_head, i]) * sine[i],
                spec.dtype,
            )

    @T.prim_func(s_tir=True)
    def shadowattn_split_rotary(
        var_qkv: T.handle,
        var_position_map: T.handle,
        var_q: T.handle,
        var_k: T.handle,
        var_v: T.handle,
        apply_rope: T.int64,
    ) -> None:
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
        tokens = T.int32()
        position_offset = T.int32()
        qkv = T.match_buffer(var_qkv, (tokens, fused_heads, dim), spec.dtype)
        q = T.match_buffer(var_q, (tokens, num_q, dim), spec.dtype)
        k = T.match_buffer(var_k, (tokens, stored, dim), spec.dtype)
        v = T.match_buffer(var_v, (tokens, stored, dim), spec.dtype)
        position_map = T.match_buffer(
            var_position_map, (tokens,), "int32", elem_offset=position_offset
        )
        for token in T.parallel(tokens):
            angle = T.alloc_buffer((half,), "float32")
            cosine = T.alloc_buffer((half,), "float32")
            sine = T.alloc_buffer((half,), "float32")
            # Unrotated is rotated by zero, exactly: cos 0 = 1 and sin 0 = 0.
            position = T.bind(
                T.Cast("float32", T.if_then_else(apply_rope > 0, position_map[token], 0))
            )
            turn(angle, position)
            for i in range(half):
                cosine[i] = T.cos(angle[i])
                sine[i] = T.sin(angle[i])
            for head in range(num_q):
                rotate(q, token, head, qkv, head, cosine, sine)
            for head in range(num_kv):
                rotate(k, token, head, qkv, num_q + head, cosine, sine)
            for head in range(num_kv):
                for d in T.vectorized(dim):
                    v[token, head, d] = qkv[token, num_q + stored + head, d]
            if spec.shadow_rows > 0:
                k[token, num_kv, 0] = qkv[token, num_q + num_kv, 0]

    return shadowattn_split_rotary
