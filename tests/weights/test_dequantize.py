from __future__ import annotations

import numpy as np

from shadowattn_tvm.weights.dequantize import plain_parameters
from shadowattn_tvm.weights.group_quantize import quantize_q4
from tir_kernels.reference.linear import dequantize_q4


def test_nibbles_are_taken_lowest_first_and_centred_at_seven() -> None:
    words = np.zeros((1, 8), np.uint32)
    words[0, 0] = 0xE_7_6_5_4_3_1_0  # element 0 is the lowest nibble
    words[0, 4] = 0xE_0_0_0_0_0_0_0  # the second group begins here
    got = dequantize_q4(words, np.array([[0.5, 10.0]], np.float32))
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got[0, :8], 0.5 * np.array([-7, -6, -4, -3, -2, -1, 0, 7]))
    np.testing.assert_array_equal(got[0, 32:40], 10.0 * np.array([-7] * 7 + [7]))


def test_quantizing_and_back_errs_by_half_a_step_at_most() -> None:
    weights = np.random.default_rng(3).standard_normal((24, 96)).astype(np.float32)
    q_weight, q_scale = quantize_q4(weights)
    error = np.abs(dequantize_q4(q_weight, q_scale) - weights)
    assert (error <= 0.5001 * np.repeat(q_scale, 32, axis=1)).all()
    assert error.max() > 0


def test_only_quantized_parameters_change() -> None:
    weights = np.random.default_rng(4).standard_normal((4, 32)).astype(np.float32)
    q_weight, q_scale = quantize_q4(weights)
    norm = np.ones(32, np.float32)
    stored = {"a.proj.q_weight": q_weight, "a.proj.q_scale": q_scale, "a.norm.weight": norm}
    plain = dict(plain_parameters(stored))
    assert list(plain) == ["a.proj.weight", "a.norm.weight"]
    np.testing.assert_array_equal(plain["a.proj.weight"], dequantize_q4(q_weight, q_scale))
    np.testing.assert_array_equal(plain["a.norm.weight"], norm)
