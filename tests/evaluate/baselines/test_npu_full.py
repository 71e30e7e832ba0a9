"""NPU-Full against its definition in integers, and the scales it takes from calibration text."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest

from shadowattn_tvm.errors import ConfigError
from shadowattn_tvm.evaluate.baselines import Full, NpuFull, ScaleObserver, StaticScales
from tests.evaluate.baselines.definitions import CASES, Case
from tir_kernels.reference.attention import merge_states

SCALES = StaticScales(q=(0.03,), k=(0.02,), v=(0.01,))


def _defined(case: Case, bits: int, with_past: bool) -> tuple[np.ndarray, np.ndarray]:
    """Output and lse (m, Hq), (m, Hq, D) in float64, products in Python-sized integers."""
    q, k_past, v_past, k, v = case.tensors()
    if with_past:
        k, v = np.concatenate([k_past, k]), np.concatenate([v_past, v])
    q8, k8, v8 = (
        np.clip(np.rint(x / np.float32(scale[0])), -127, 127).astype(np.int64)
        for x, scale in ((q, SCALES.q), (k, SCALES.k), (v, SCALES.v))
    )
    levels = 2**bits - 1
    output, lse = np.empty(q.shape), np.empty(q.shape[:2])
    for i in range(len(q)):
        for head in range(case.q_heads):
            kv = head // (case.q_heads // case.kv_heads)
            seen = len(k) - len(q) + i + 1
            scores = (k8[:seen, kv] @ q8[i, head]) * 0.03 * 0.02 * case.geometry.sm_scale
            weights = np.exp(scores - scores.max())
            rounded = np.rint(weights / weights.sum() * levels)
            output[i, head] = rounded @ v8[:seen, kv] * 0.01 / levels
            lse[i, head] = (scores.max() + np.log(weights.sum())) / np.log(2)
    return output, lse


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("case", CASES, ids=str)
def test_past_and_chunk_are_one_attention(case: Case, bits: Literal[8, 16]) -> None:
    q, k_past, v_past, k, v = case.tensors()
    npu = NpuFull(case.geometry, SCALES, bits)
    alone = npu.ragged(0, q, k, v)
    whole = npu.paged(0, q, k_past, v_past)
    merged, _ = merge_states(*alone, *whole)
    # A probability may round the other way in float32: one level of one value
    atol = 1.27 / (2**bits - 1) * 2
    expected_alone, lse_alone = _defined(case, bits, with_past=False)
    np.testing.assert_allclose(alone[0], expected_alone, atol=atol)
    np.testing.assert_allclose(alone[1], lse_alone, atol=1e-4)
    np.testing.assert_allclose(merged, _defined(case, bits, with_past=True)[0], atol=atol)
    np.testing.assert_array_equal(merged.astype(np.float32), whole[0])


def test_more_bits_for_probabilities_bring_it_closer_to_exact() -> None:
    case = Case(queries=40, past=300)
    q, k_past, v_past, k, v = case.tensors()
    full = Full(case.geometry)
    exact, _ = merge_states(*full.ragged(0, q, k, v), *full.paged(0, q, k_past, v_past))
    observer = ScaleObserver(case.geometry, num_layers=1)
    observer.ragged(0, q, k_past, v_past)
    observer.ragged(0, q, k, v)
    errors = []
    for bits in (8, 16):
        npu = NpuFull(case.geometry, observer.scales(), bits)  # type: ignore[arg-type]
        npu.ragged(0, q, k, v)
        errors.append(np.abs(npu.paged(0, q, k_past, v_past)[0] - exact).mean())
    assert errors[1] < 0.5 * errors[0]


def test_scales_are_the_largest_magnitudes_seen() -> None:
    case = Case(queries=4, past=4)
    q, k_past, v_past, k, v = case.tensors()
    observer = ScaleObserver(case.geometry, num_layers=2)
    observer.ragged(0, q, k, v)
    observer.ragged(0, 2 * q, k / 2, v)
    observer.ragged(1, q, k, -3 * v)
    observer.paged(1, q, k_past, v_past)
    scales = observer.scales()
    assert scales.q == pytest.approx((2 * np.abs(q).max() / 127, np.abs(q).max() / 127))
    assert scales.k == pytest.approx((np.abs(k).max() / 127,) * 2)
    assert scales.v == pytest.approx((np.abs(v).max() / 127, 3 * np.abs(v).max() / 127))


def test_the_observer_attends_in_full() -> None:
    case = Case(queries=4, past=9)
    q, k_past, v_past, k, v = case.tensors()
    observer, full = ScaleObserver(case.geometry, 1), Full(case.geometry)
    np.testing.assert_array_equal(observer.ragged(0, q, k, v)[0], full.ragged(0, q, k, v)[0])
    np.testing.assert_array_equal(
        observer.paged(0, q, k_past, v_past)[1], full.paged(0, q, k_past, v_past)[1]
    )


def test_a_layer_that_saw_nothing_has_no_scale() -> None:
    case = Case(queries=2, past=1)
    q, _, _, k, v = case.tensors()
    observer = ScaleObserver(case.geometry, num_layers=2)
    observer.ragged(0, q, k, v)
    with pytest.raises(ConfigError, match="every layer"):
        observer.scales()
