"""Quantization: rounding, clamping, the choice among buckets, the packed layout."""

from __future__ import annotations

import numpy as np
import pytest
import tvm

from tir_kernels.pilot.quantize import bucket_scales
from tir_kernels.reference import pilot as twin
from tir_kernels.spec import AttentionSpec

from ..shadow_harness import every_variant, run_quantize_keys, unpack_keys

SPEC = AttentionSpec(num_q_heads=1, num_kv_heads=1, head_dim=64, sm_scale=0.125)
UNIT = (0.5, 1.0, 2.0)
"""Bucket scales around 1, for rows whose values are the integers they become."""


def quantized(
    rows: np.ndarray, scales: tuple[float, float, float], variant: str, target: tvm.target.Target
) -> tuple[np.ndarray, np.float32]:
    table = np.arange(len(rows))
    packed, chosen = run_quantize_keys(SPEC, variant, target, rows, table, 0, scales)
    return unpack_keys(packed.numpy(), variant, target), chosen


def test_bucket_scales_are_float32_and_ascend() -> None:
    scales = bucket_scales(0.1, 0.3)
    assert scales == tuple(float(np.float32(s)) for s in (0.1 * 0.3, 0.1, 0.1 / 0.3))
    assert scales[0] < scales[1] < scales[2]


@every_variant
def test_halves_round_to_even_and_extremes_clamp(
    variant: str, host_target: tvm.target.Target
) -> None:
    rows = np.zeros((3, SPEC.head_dim), np.float32)
    rows[0, :8] = [0.5, 1.5, 2.5, -0.5, -1.5, 126.5, -126.5, 127.49]
    rows[1, :6] = [127.5, 1e30, np.inf, -127.5, -1e30, -np.inf]
    rows[2] = np.nextafter(np.float32(2.5), np.float32(3.0))
    got, _ = quantized(rows, (1.0, 1.0, 1.0), variant, host_target)
    assert got[0, :8].tolist() == [0, 2, 2, 0, -2, 126, -126, 127]
    assert got[1, :6].tolist() == [127, 127, 127, -127, -127, -127]
    assert (got[2] == 3).all()


@every_variant
def test_division_rounds_as_numpy_does(variant: str, host_target: tvm.target.Target) -> None:
    # A multiplication by the reciprocal would differ in some of these.
    rng = np.random.default_rng(0)
    scales = bucket_scales(0.0137, 0.5)
    rows = np.linspace(-1.74, 1.74, 400 * SPEC.head_dim, dtype=np.float32)
    rows = rng.permutation(rows).reshape(400, SPEC.head_dim)
    got, chosen = quantized(rows, scales, variant, host_target)
    assert chosen == twin.choose_scale(rows, 0.0137, 0.5)
    np.testing.assert_array_equal(got[:400], twin.quantize(rows, chosen))


@every_variant
@pytest.mark.parametrize(
    ("measured", "bucket"),
    [(0.0, 0), (0.1, 0), (0.75, 0), (0.7501, 1), (1.0, 1), (1.5, 1), (1.5001, 2), (2.0, 2), (9, 2)],
)
def test_nearest_bucket_and_ties_go_to_the_smaller(
    measured: float, bucket: int, variant: str, host_target: tvm.target.Target
) -> None:
    rows = np.zeros((5, SPEC.head_dim), np.float32)
    rows[3, 17] = -measured * 127
    _, chosen = quantized(rows, UNIT, variant, host_target)
    assert chosen == UNIT[bucket]
    assert chosen == twin.choose_scale(rows, 1.0, 0.5)


@every_variant
@pytest.mark.parametrize("num_keys", [0, 1, 15, 16, 17, 65])
def test_rows_are_gathered_and_padding_is_zero(
    num_keys: int, variant: str, host_target: tvm.target.Target
) -> None:
    rng = np.random.default_rng(num_keys)
    rows = np.full((100, SPEC.head_dim), np.nan, np.float32)
    table = rng.permutation(80)[:num_keys]
    offset = 20
    rows[table + offset] = rng.standard_normal((num_keys, SPEC.head_dim))
    scales = bucket_scales(0.02, 0.5)
    packed, chosen = run_quantize_keys(SPEC, variant, host_target, rows, table, offset, scales)
    got = unpack_keys(packed.numpy(), variant, host_target)
    np.testing.assert_array_equal(got[:num_keys], twin.quantize(rows[table + offset], chosen))
    assert not got[num_keys:].any()
