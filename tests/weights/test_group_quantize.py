"""q4f32_1 and q4f16_1 against a loop written from the definition, and the kernels' own twin."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from shadowattn_tvm.weights.group_quantize import quantize_q4
from tir_kernels.reference import linear


def by_definition(
    weights: NDArray[np.float32], number: type[np.float32 | np.float16]
) -> tuple[NDArray[np.uint32], NDArray[np.floating]]:
    """MLC's arithmetic, one weight at a time, in float32 or float16."""
    rows, columns = weights.shape
    weights = weights.astype(number)
    packed = np.zeros((rows, columns // 8), np.uint32)
    scales = np.zeros((rows, columns // 32), number)
    for row in range(rows):
        for column in range(columns):
            group = weights[row, column // 32 * 32 : column // 32 * 32 + 32]
            scale = number(max(abs(w) for w in group)) / number(7)
            scales[row, column // 32] = scale
            level = number(7) if scale == 0 else weights[row, column] / scale + number(7)
            code = min(max(round(float(level)), 0), 14)
            packed[row, column // 8] |= np.uint32(code << (4 * (column % 8)))
    return packed, scales


def dequantized(packed: NDArray[np.uint32], scales: NDArray[np.floating]) -> NDArray[np.float32]:
    shifts = np.arange(8, dtype=np.uint32) * 4
    codes = (packed[..., None] >> shifts & 15).reshape(len(packed), -1).astype(np.float32)
    return (codes - 7) * np.repeat(scales, 32, axis=1)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 4),
    st.integers(1, 3),
    st.integers(-30, 30),
    st.sampled_from([np.float32, np.float16]),
)
def test_equals_the_definition(
    seed: int, rows: int, groups: int, exponent: int, number: type[np.float32 | np.float16]
) -> None:
    rng = np.random.default_rng(seed)
    if number is np.float16:  # down to its subnormal numbers, where a group's scale may be zero
        exponent = max(-26, exponent // 2 - 11)
    weights = np.ldexp(rng.standard_normal((rows, groups * 32), dtype=np.float32), exponent)
    dtype = np.dtype(number).name
    got = quantize_q4(weights, dtype)
    for mine, expected in zip(got, by_definition(weights, number), strict=True):
        assert mine.dtype == expected.dtype
        np.testing.assert_array_equal(mine, expected)


def test_halves_round_to_even_and_ends_are_reached() -> None:
    weights = np.zeros((1, 32), np.float32)
    weights[0, :8] = [7, -7, 0.5, 1.5, 2.5, -0.5, -1.5, 0]
    packed, scales = quantize_q4(weights)
    assert scales[0, 0] == 1.0
    codes = [int(packed[0, 0]) >> (4 * i) & 15 for i in range(8)]
    assert codes == [14, 0, 8, 8, 10, 6, 6, 7]


def test_a_group_of_zeros_stays_zero() -> None:
    weights = np.ones((2, 64), np.float32)
    weights[1, 32:] = 0.0
    packed, scales = quantize_q4(weights)
    restored = dequantized(packed, scales)
    assert np.isfinite(restored).all()
    np.testing.assert_allclose(restored, weights, rtol=1e-6)


def test_the_error_is_at_most_half_a_step() -> None:
    weights = np.random.default_rng(0).standard_normal((64, 256), dtype=np.float32)
    packed, scales = quantize_q4(weights)
    error = np.abs(dequantized(packed, scales) - weights)
    assert (error <= np.repeat(scales, 32, axis=1) * 0.5001).all()


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_agrees_with_the_kernels_twin(dtype: Literal["float32", "float16"]) -> None:
    weights = np.random.default_rng(1).standard_normal((96, 128), dtype=np.float32)
    packed, scales = quantize_q4(weights, dtype)
    twin_packed, twin_scales = linear.quantize_q4(weights, dtype)
    np.testing.assert_array_equal(packed, twin_packed)
    np.testing.assert_array_equal(scales, twin_scales)
    np.testing.assert_array_equal(linear.dequantize_q4(packed, scales), dequantized(packed, scales))
