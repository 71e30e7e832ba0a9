"""NumPy twin of requantization: the same integers, bit for bit."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..constants import INT8_QMAX
from ..pilot.requantize import INT16_MAX, MULTIPLY_SHIFT, Requantizer

Int32s = npt.NDArray[np.int32]


def requantize(scores: Int32s, by: Requantizer, score_max: int = INT8_QMAX) -> Int32s:
    """Scores in -score_max..score_max, kept as int32, of INT32 scores (any shape)."""
    halved = scores.astype(np.int64) + (1 << by.shift >> 1)
    t = np.clip(halved >> by.shift, -INT16_MAX - 1, INT16_MAX)
    scaled = (t * by.multiplier + (1 << (MULTIPLY_SHIFT - 1))) >> MULTIPLY_SHIFT
    return np.asarray(np.clip(scaled, -score_max, score_max), np.int32)
