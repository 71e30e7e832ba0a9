"""Softmax with temperature and MLC's logit processors against their twins."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tvm

from tir_kernels.build import build_kernels
from tir_kernels.features import cpu_features
from tir_kernels.logits import (
    apply_bitmask_inplace,
    apply_logit_bias_inplace,
    apply_penalty_inplace,
    softmax_with_temperature,
)
from tir_kernels.reference import logits as twin


@pytest.fixture(scope="module")
def kernels(host_target: tvm.target.Target) -> Any:
    functions = {
        "softmax": softmax_with_temperature(cpu_features(host_target)),
        "bias": apply_logit_bias_inplace(),
        "penalty": apply_penalty_inplace(),
        "bitmask": apply_bitmask_inplace(),
    }
    return build_kernels(functions, host_target)


def run_inplace(kernel: Callable[..., None], logits: np.ndarray, *inputs: np.ndarray) -> np.ndarray:
    result = tvm.runtime.tensor(logits)
    kernel(result, *(tvm.runtime.tensor(value) for value in inputs))
    return result.numpy()


@pytest.mark.parametrize("vocab", [1, 7, 8, 1003, 49152])
@pytest.mark.parametrize("spread", [1.0, 50.0])
def test_softmax(kernels: Any, vocab: int, spread: float) -> None:
    rng = np.random.default_rng(vocab)
    logits = (rng.standard_normal((3, vocab)) * spread).astype(np.float32)
    temperature = np.array([0.7, 0.0, 2.5], np.float32)
    got = tvm.runtime.tensor(np.full_like(logits, np.nan))
    kernels["softmax"](tvm.runtime.tensor(logits), tvm.runtime.tensor(temperature), got)
    np.testing.assert_allclose(
        got.numpy(), twin.softmax_with_temperature(logits, temperature), rtol=2e-5, atol=1e-12
    )
    np.testing.assert_allclose(got.numpy().sum(axis=1), 1.0, rtol=1e-4)


def test_greedy_softmax_takes_the_first_of_equals(kernels: Any) -> None:
    logits = np.array([[1.0, 3.0, 3.0, 2.0]], np.float32)
    got = tvm.runtime.tensor(np.empty_like(logits))
    kernels["softmax"](tvm.runtime.tensor(logits), tvm.runtime.tensor(np.zeros(1, "float32")), got)
    assert got.numpy().tolist() == [[0.0, 1.0, 0.0, 0.0]]


def test_logit_bias(kernels: Any) -> None:
    rng = np.random.default_rng(1)
    logits = rng.standard_normal((3, 50), dtype=np.float32)
    rows, tokens = np.array([0, 2, 2], np.int32), np.array([7, 7, 49], np.int32)
    bias = np.array([1.5, -2.0, 0.25], np.float32)
    np.testing.assert_allclose(
        run_inplace(kernels["bias"], logits, rows, tokens, bias),
        twin.apply_logit_bias(logits, rows, tokens, bias),
    )


def test_penalties(kernels: Any) -> None:
    rng = np.random.default_rng(2)
    logits = rng.standard_normal((3, 50), dtype=np.float32) * 3
    seq_ids, sequence = np.array([2, 0], np.int32), np.array([0, 0, 1, 1], np.int32)
    tokens, counts = np.array([1, 2, 1, 49], np.int32), np.array([1, 3, 2, 1], np.int32)
    penalties = np.array([[0.5, 0.25, 1.3], [0.0, 1.0, 2.0]], np.float32)
    inputs = (seq_ids, sequence, tokens, counts, penalties)
    np.testing.assert_allclose(
        run_inplace(kernels["penalty"], logits, *inputs),
        twin.apply_penalty(logits, *inputs),
        rtol=1e-6,
    )


@pytest.mark.parametrize("vocab", [31, 32, 33, 100])
def test_bitmask(kernels: Any, vocab: int) -> None:
    rng = np.random.default_rng(vocab)
    logits = rng.standard_normal((3, vocab), dtype=np.float32)
    words = rng.integers(0, 1 << 32, (3, (vocab + 31) // 32), dtype=np.uint32).view(np.int32)
    seq_ids = np.array([2, 0], np.int32)
    np.testing.assert_array_equal(
        run_inplace(kernels["bitmask"], logits, seq_ids, words),
        twin.apply_bitmask(logits, seq_ids, words),
    )
