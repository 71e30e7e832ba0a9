"""MLC-LLM's q4f32_1 and q4f16_1 in NumPy: 4-bit weights, in groups of 32 with a scale, along a row.

Per group: scale = max|w| / 7, q = clamp(round(w / scale + 7), 0, 14), eight of them in a uint32,
the first in the lowest bits (mlc_llm/quantization/group_quantization.py).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tir_kernels.constants import QUANT_GROUP, QUANT_PER_WORD, QUANT_ZERO_POINT

from ..config.chat_config import ModelDtype

_BITS = 32 // QUANT_PER_WORD


def quantize_q4(
    weights: NDArray[np.float32], dtype: ModelDtype = "float32"
) -> tuple[NDArray[np.uint32], NDArray[np.floating]]:
    """Quantize rows (N, K) float32, K a multiple of 32; for float16, they are finite in it.

    Returns q_weight (N, K / 8) uint32 and q_scale (N, K / 32), of `dtype`. Weights are rounded to
    `dtype` first, and so is the result of every step; halves round to even. A group of zeros gets
    the scale 0 and codes of 7, which give 0 back (MLC divides by the zero scale and stores whatever
    NaN converts to; it gives 0 back as well).
    """
    rows, columns = weights.shape
    zero_point = np.float32(QUANT_ZERO_POINT)

    def rounded(values: NDArray[np.floating]) -> NDArray[np.float32]:
        # float32 is wide enough that rounding its quotients and sums once more is rounding once
        return values.astype(dtype, copy=False).astype(np.float32, copy=False)

    groups = rounded(weights).reshape(rows, columns // QUANT_GROUP, QUANT_GROUP)
    scale = rounded(np.abs(groups).max(axis=-1) / zero_point)
    divisor = np.where(scale == 0.0, np.float32(1.0), scale)[..., None]
    codes = np.rint(rounded(rounded(groups / divisor) + zero_point))
    np.clip(codes, 0, 2 * QUANT_ZERO_POINT, out=codes)
    nibbles = codes.astype(np.uint32).reshape(rows, columns // QUANT_PER_WORD, QUANT_PER_WORD)
    shifts = np.arange(QUANT_PER_WORD, dtype=np.uint32) * np.uint32(_BITS)
    packed: NDArray[np.uint32] = np.bitwise_or.reduce(nibbles << shifts, axis=-1)
    return packed, scale.astype(dtype, copy=False)
