"""NumPy twins of quantization and the pilot: the same integers, bit for bit."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..constants import INT8_QMAX
from ..pilot.quantize import bucket_scales

Floats = npt.NDArray[np.float32]
Int8s = npt.NDArray[np.int8]
Int32s = npt.NDArray[np.int32]


def choose_bucket(
    rows: Floats, center: float, sigma: float, per_axis: int = 3, quant_max: int = INT8_QMAX
) -> int:
    """Which of an axis' scales `rows` (any shape, float32) take: the nearest to absmax /
    quant_max, ties downwards."""
    largest = np.abs(rows).max(initial=np.float32(0)).astype(np.float32)
    measured = largest / np.float32(quant_max)
    scales = np.array(bucket_scales(center, sigma, per_axis), np.float32)
    return int(np.argmin(np.abs(measured - scales)))  # the first of equals


def choose_scale(
    rows: Floats, center: float, sigma: float, per_axis: int = 3, quant_max: int = INT8_QMAX
) -> np.float32:
    """The scale of `choose_bucket`."""
    bucket = choose_bucket(rows, center, sigma, per_axis, quant_max)
    return np.float32(bucket_scales(center, sigma, per_axis)[bucket])


def hadamard(x: Floats) -> Floats:
    """The unnormalized Walsh-Hadamard transform of the last axis, over blocks of the largest power
    of two that divides it; float32 sums and differences, stage by stage from distance 1."""
    dim = x.shape[-1]
    block = dim & -dim
    y = x.astype(np.float32)
    distance = 1
    while distance < block:
        pairs = y.reshape(*x.shape[:-1], dim // (2 * distance), 2, distance)
        first, second = pairs[..., 0, :], pairs[..., 1, :]
        y = np.stack([first + second, first - second], axis=-2).reshape(x.shape)
        distance *= 2
    return y


def quantize(x: Floats, scale: np.float32, quant_max: int = INT8_QMAX) -> Int8s:
    """clamp(round_half_even(x / scale), -quant_max, quant_max), the division in float32; the shape
    of x."""
    with np.errstate(over="ignore"):
        rounded = np.rint(x.astype(np.float32) / np.float32(scale))
    return np.asarray(np.clip(rounded, -quant_max, quant_max), dtype=np.int8)


def pilot_scores(q8: Int8s, k8: Int8s) -> Int32s:
    """S = Q8.K8^T: (m, D), (n, D) -> (m, n) int32."""
    return q8.astype(np.int32) @ k8.astype(np.int32).T
