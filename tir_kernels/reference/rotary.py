"""NumPy twin of `tir_kernels.rotary`."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

FloatArray = NDArray[np.float32]


def split_rotary(
    qkv: FloatArray, positions: NDArray[np.int32], num_kv_heads: int, frequencies: FloatArray
) -> tuple[FloatArray, FloatArray, FloatArray]:
    """qkv (tokens, Hq + 2 Hkv, D), positions (tokens,), frequencies (D / 2,) ->
    q (tokens, Hq, D), k and v (tokens, Hkv, D); the first two rotated, in float64."""
    half = qkv.shape[-1] // 2
    # The angle itself is a float32 product: that rounding is part of the definition.
    angles = (positions[:, None].astype(np.float32) * frequencies)[:, None, :].astype(np.float64)
    cosine, sine = np.cos(angles), np.sin(angles)
    num_rotated = qkv.shape[1] - num_kv_heads
    first, second = qkv[:, :num_rotated, :half], qkv[:, :num_rotated, half:]
    rotated = np.concatenate(
        [first * cosine - second * sine, second * cosine + first * sine], axis=-1
    ).astype(np.float32)
    num_q_heads = num_rotated - num_kv_heads
    return rotated[:, :num_q_heads], rotated[:, num_q_heads:], qkv[:, num_rotated:]
