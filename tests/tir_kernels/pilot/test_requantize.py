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
    # 1032256 = 127 * 127 * 64 takes 20 bits, five too many; 0.001 * 2^5 = 16777 * 2^-19
    by = requantizer(0.001, 64, 127)
    assert by == Requantizer(pre_shift=5, multiplier=16777, shift=19)
    # 16000 -> 500 -> 500 * 16777 / 2^19 = 16.0; 48500 -> 1516 (up from .625) -> 48.5 -> 49
    scores = np.array([0, 16000, -16000, 48500, 10**6, -(10**6)], np.int32)
    np.testing.assert_array_equal(requantize(scores, by), [0, 16, -16, 49, 127, -127])


@given(
    factor=st.floats(1e-4, 10.0),
    head_dim=st.sampled_from([16, 64, 80, 128, 256]),
    quant_max=st.sampled_from([7, 127]),
)
def test_error_below_one_unit(factor: float, head_dim: int, quant_max: int) -> None:
    by = requantizer(factor, head_dim, quant_max)
    assert 2**14 <= by.multiplier < 2**15
    exact = Fraction(by.multiplier, 2 ** (by.pre_shift + by.shift))
    assert abs(exact / Fraction(factor) - 1) <= Fraction(1, 2**15)
    largest = quant_max * quant_max * head_dim
    scores = np.unique(np.linspace(-largest, largest, 1001).astype(np.int32))
    # what shifting first may lose, and half a unit of rounding
    slack = 0.5 + factor * 2.0 ** (by.pre_shift - 1) + 127 / 2**15
    wanted = np.clip(scores * factor, -127, 127)
    assert np.abs(requantize(scores, by) - wanted).max() <= slack
    assert largest + (1 << by.pre_shift >> 1) >> by.pre_shift < 2**15  # the product fits


@pytest.mark.parametrize("factor", [0.0, -1.0, float("inf"), float("nan"), 1e-12, 1e12])
def test_factors_that_cannot_be(factor: float) -> None:
    with pytest.raises(SpecError, match="requantization factor"):
        requantizer(factor, 64, 127)
