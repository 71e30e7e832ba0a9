"""NumPy twins of the linear layers, the quantized embedding and q4f32_1."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..constants import QUANT_GROUP, QUANT_PER_WORD, QUANT_ZERO_POINT

_NIBBLE_SHIFTS = np.arange(QUANT_PER_WORD, dtype=np.uint32) * np.uint32(32 // QUANT_PER_WORD)
_NIBBLE_MASK = np.uint32((1 << 32 // QUANT_PER_WORD) - 1)


def linear(x: NDArray[np.float32], w: NDArray[np.float32]) -> NDArray[np.float32]:
    """`x @ w.T`, x (M, K), w (N, K), summed in float64."""
    return (x.astype(np.float64) @ w.astype(np.float64).T).astype(np.float32)


def quantize_q4(w: NDArray[np.float32]) -> tuple[NDArray[np.uint32], NDArray[np.float32]]:
    """MLC's q4f32_1 of w (N, K), K a multiple of 32: q_weight (N, K / 8), q_scale (N, K / 32).

    Per group of 32: scale = absmax / 7, q = clamp(round(w / scale + 7), 0, 14), in float32, halves
    to even as TVM rounds them. A group of zeros has scale 0 and, where MLC divides by it, q = 7:
    it dequantizes to zeros.
    """
    rows, columns = w.shape
    groups = w.astype(np.float32).reshape(rows, columns // QUANT_GROUP, QUANT_GROUP)
    scale = np.abs(groups).max(axis=2) / np.float32(QUANT_ZERO_POINT)
    divisor = np.where(scale > 0, scale, np.float32(1))[:, :, None]
    q = np.clip(np.rint(groups / divisor + np.float32(QUANT_ZERO_POINT)), 0, 2 * QUANT_ZERO_POINT)
    nibbles = q.astype(np.uint32).reshape(rows, columns // QUANT_PER_WORD, QUANT_PER_WORD)
    return (nibbles << _NIBBLE_SHIFTS).sum(axis=2, dtype=np.uint32), scale


def dequantize_q4(
    q_weight: NDArray[np.uint32], q_scale: NDArray[np.float32]
) -> NDArray[np.float32]:
    """The weight (N, K) of a q4f32_1 pair: `(q - 7) * scale`, one rounding to float32."""
    nibbles = (q_weight[:, :, None] >> _NIBBLE_SHIFTS) & _NIBBLE_MASK
    rows, groups = q_scale.shape
    centred = nibbles.astype(np.float32).reshape(rows, groups, QUANT_GROUP) - np.float32(
        QUANT_ZERO_POINT
    )
    return (centred * q_scale[:, :, None]).reshape(rows, groups * QUANT_GROUP)


def embedding(
    ids: NDArray[np.int32], q_weight: NDArray[np.uint32], q_scale: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Rows `ids` (S,) of a q4f32_1 table, (S, H)."""
    return dequantize_q4(q_weight[ids], q_scale[ids])
