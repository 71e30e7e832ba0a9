"""NumPy twin of requantization: the same integers, bit for bit."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..constants import INT8_QMAX
from ..pilot.requantize import Requantizer

Int32s = npt.NDArray[np.int32]


def requantize(scores: Int32s, by: Requantizer) -> Int32s:
    """INT8 scores, in -127..127 but kept as int32, of INT32 scores (any shape)."""
    wide = scores.astype(np.int64)
    shifted = (wide + _half(by.pre_shift)) >> by.pre_shift
    scaled = (shifted * by.multiplier + _half(by.shift)) >> by.shift
    return np.asarray(np.clip(scaled, -INT8_QMAX, INT8_QMAX), np.int32)


def _half(shift: int) -> int:
    return 1 << (shift - 1) if shift else 0
