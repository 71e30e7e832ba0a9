"""NumPy twins of the linear layers, the quantized embedding, q4f32_1 and q4f16_1."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ..constants import QUANT_GROUP, QUANT_PER_WORD, QUANT_ZERO_POINT
from ..spec import StorageDtype

_NIBBLE_SHIFTS = np.arange(QUANT_PER_WORD, dtype=np.uint32) * np.uint32(32 // QUANT_PER_WORD)
_NIBBLE_MASK = np.uint32((1 << 32 // QUANT_PER_WORD) - 1)


def linear(x: NDArray[np.floating], w: NDArray[np.floating]) -> NDArray[np.float32]:
    """`x @ w.T`, x (M, K), w (N, K), summed in float64."""
    return (x.astype(np.float64) @ w.astype(np.float64).T).astype(np.float32)


def quantize_q4(
    w: NDArray[np.float32], dtype: StorageDtype = "float32"
) -> tuple[NDArray[np.uint32], NDArray[np.floating]]:
    """MLC's q4f32_1 of w (N, K), K a multiple of 32: q_weight (N, K / 8), q_scale (N, K / 32); with
    float16, its q4f16_1.

    Per group of 32: scale = absmax / 7, q = clamp(round(w / scale + 7), 0, 14), each step rounded
    to `dtype`, halves to even as TVM rounds them. A group of zeros has scale 0 and, where MLC
    divides by it, q = 7: it dequantizes to zeros.
    """
    rows, columns = w.shape
    one, zero_point = (np.dtype(dtype).type(number) for number in (1, QUANT_ZERO_POINT))
    groups = w.astype(dtype).reshape(rows, columns // QUANT_GROUP, QUANT_GROUP)
    scale = np.abs(groups).max(axis=2) / zero_point
    divisor = np.where(scale > 0, scale, one)[:, :, None]
    q = np.clip(np.rint(groups / divisor + zero_point), 0, 2 * QUANT_ZERO_POINT)
    nibbles = q.astype(np.uint32).reshape(rows, columns // QUANT_PER_WORD, QUANT_PER_WORD)
    return (nibbles << _NIBBLE_SHIFTS).sum(axis=2, dtype=np.uint32), scale


def dequantize_q4(
    q_weight: NDArray[np.uint32], q_scale: NDArray[np.floating]
) -> NDArray[np.float32]:
    """The weight (N, K) of a q4f32_1 or q4f16_1 pair: `(q - 7) * scale`, one rounding to float32,
    none where the scales are float16."""
    nibbles = (q_weight[:, :, None] >> _NIBBLE_SHIFTS) & _NIBBLE_MASK
    rows, groups = q_scale.shape
    centred = nibbles.astype(np.float32).reshape(rows, groups, QUANT_GROUP) - np.float32(
        QUANT_ZERO_POINT
    )
    return (centred * q_scale[:, :, None]).reshape(rows, groups * QUANT_GROUP)


def embedding(
    ids: NDArray[np.int32], q_weight: NDArray[np.uint32], q_scale: NDArray[np.floating]
) -> NDArray[np.floating]:
    """Rows `ids` (S,) of a 4-bit table, (S, H), in the dtype of its scales."""
    return dequantize_q4(q_weight[ids], q_scale[ids]).astype(q_scale.dtype)
