"""NumPy twins of quantization and the pilot: the same integers, bit for bit."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..constants import INT8_QMAX
from ..quantize import bucket_scales

Floats = npt.NDArray[np.float32]
Int8s = npt.NDArray[np.int8]
Int32s = npt.NDArray[np.int32]


def choose_scale(rows: Floats, center: float, sigma: float) -> np.float32:
    """The bucket scale for `rows` (any shape, float32): nearest to absmax / 127, ties downwards."""
    largest = np.abs(rows).max(initial=np.float32(0)).astype(np.float32)
    measured = largest / np.float32(INT8_QMAX)
    scales = np.array(bucket_scales(center, sigma), np.float32)
    return np.float32(scales[np.argmin(np.abs(measured - scales))])  # the first of equals


def quantize(x: Floats, scale: np.float32) -> Int8s:
    """clamp(round_half_even(x / scale), -127, 127), the division in float32; the shape of x."""
    with np.errstate(over="ignore"):
        rounded = np.rint(x.astype(np.float32) / np.float32(scale))
    return np.asarray(np.clip(rounded, -INT8_QMAX, INT8_QMAX), dtype=np.int8)


def pilot_scores(q8: Int8s, k8: Int8s) -> Int32s:
    """S = Q8.K8^T: (m, D), (n, D) -> (m, n) int32."""
    return q8.astype(np.int32) @ k8.astype(np.int32).T
