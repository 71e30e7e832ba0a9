"""Fixed point against exact arithmetic; the kernels' integers are tested in test_shadow_lists."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tir_kernels.pilot.requantize import Requantizer, requantizer
from tir_kernels.reference.requantize import requantize
from tir_kernels.spec import SpecError


def test_by_hand() -> None:
    # 0.001 = 0.512 * 2^-9, so 11 bits of it are 1048.576 * 2^-20, and 20 = 15 + 5
    by = requantizer(0.001)
    assert by == Requantizer(shift=5, multiplier=1049)
    # 16000 -> 500 -> 500 * 1049 / 2^15 = 16.006; 48500 -> 1516 (up from .625) -> 48.53 -> 49
    scores = np.array([0, 16000, -16000, 48500, 10**6, -(10**6)], np.int32)
    np.testing.assert_array_equal(requantize(scores, by), [0, 16, -16, 49, 127, -127])


def test_factor_one_is_all_but_one() -> None:
    assert requantizer(1.0) == Requantizer(shift=0, multiplier=2**15 - 1)
    scores = np.arange(-200, 201, dtype=np.int32)
    np.testing.assert_array_equal(requantize(scores, requantizer(1.0)), scores.clip(-127, 127))


@given(
    factor=st.floats(1e-4, 1.0),
    head_dim=st.sampled_from([16, 64, 80, 128, 256]),
    quant_max=st.sampled_from([7, 127]),
)
def test_error_little_more_than_half_a_unit(factor: float, head_dim: int, quant_max: int) -> None:
    by = requantizer(factor)
    assert by.shift == 0 or 2**10 <= by.multiplier <= 2**11
    exact = Fraction(by.multiplier, 2 ** (15 + by.shift))
    assert abs(exact / Fraction(factor) - 1) <= Fraction(1, 2**11)
    largest = quant_max * quant_max * head_dim
    scores = np.unique(np.linspace(-largest, largest, 1001).astype(np.int32))
    wanted = np.clip(scores * factor, -127, 127)
    # rounding, what the first shift rounded before, and the multiplier
    slack = 0.5 + 2.0**-5 + 128 / 2**11
    assert np.abs(requantize(scores, by) - wanted).max() <= slack


@pytest.mark.parametrize("factor", [0.0, -1.0, float("inf"), float("nan"), 1e-12, 1.01])
def test_factors_that_cannot_be(factor: float) -> None:
    with pytest.raises(SpecError, match="requantization factor"):
        requantizer(factor)
