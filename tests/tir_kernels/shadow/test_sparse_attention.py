"""Sparse attention: lists of every length, gathered rows, softmax at its limits."""

from __future__ import annotations

import numpy as np
import pytest
import tvm

from tir_kernels.constants import EMPTY_LSE
from tir_kernels.reference.sparse_attention import sparse_attention as twin
from tir_kernels.spec import AttentionSpec

from ..dense_harness import HALF, HALF_ODD_DIMS, SPECS, TOLERANCE, output_tolerance, spec_id
from ..shadow_harness import every_variant, filled, stage, tensor

SMALL = SPECS[0]


def check(
    spec: AttentionSpec,
    variant: str,
    target: tvm.target.Target,
    q: np.ndarray,
    k: np.ndarray,
    v: np.ndarray,
    lists: list[np.ndarray],
    tolerance: dict[str, float] = TOLERANCE,
) -> None:
    """`q` (m, Hq, D), `k`, `v` (n, D); the keys are scattered over rows that hold NaN elsewhere."""
    rng = np.random.default_rng(0)
    head = spec.num_q_heads - 1
    key_offset, value_offset = 3, 2 * len(k) + 7
    row_table = rng.permutation(2 * len(k))[: len(k)]
    rows = np.full((4 * len(k) + 10, spec.head_dim), np.nan, spec.dtype)
    rows[row_table + key_offset], rows[row_table + value_offset] = k, v
    indices = np.full((len(q), max(map(len, lists)) + 1), -77, np.int32)
    for i, selected in enumerate(lists):
        indices[i, : len(selected)] = selected
    output, lse = filled(q.shape, spec.dtype, np.nan), filled(q.shape[:2], "float32", np.nan)
    stage("sparse_attention", spec, variant, target)["sparse_attention"](
        tensor(q),
        tensor(rows),
        tensor(rows),
        tensor(row_table.astype(np.int32)),
        tensor(indices),
        tensor(np.array([len(selected) for selected in lists], np.int32)),
        output,
        lse,
        head,
        key_offset,
        value_offset,
    )
    want_output, want_lse = twin(q[:, head], k, v, lists, spec.sm_scale)
    np.testing.assert_allclose(
        output.numpy()[:, head], want_output, **output_tolerance(spec, tolerance)
    )
    np.testing.assert_allclose(lse.numpy()[:, head], want_lse, **tolerance)
    assert np.isnan(output.numpy()[:, :head]).all(), "other heads are left alone"


def draw(
    spec: AttentionSpec, num_queries: int, num_keys: int, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    q = rng.standard_normal((num_queries, spec.num_q_heads, spec.head_dim), dtype=np.float32)
    k, v = rng.standard_normal((2, num_keys, spec.head_dim), dtype=np.float32)
    return q.astype(spec.dtype), k.astype(spec.dtype), v.astype(spec.dtype)


def random_list(num_keys: int, length: int, rng: np.random.Generator) -> np.ndarray:
    return np.sort(rng.permutation(num_keys)[:length]).astype(np.int32)


@pytest.mark.parametrize("spec", [*SPECS, HALF, HALF_ODD_DIMS], ids=spec_id)
def test_kernel_equals_twin(spec: AttentionSpec, host_target: tvm.target.Target) -> None:
    rng = np.random.default_rng(spec.head_dim)
    lengths = [0, 1, 2, 7, 8, 9, 15, 16, 17, 31, 300, 299, 0, 40] * 3
    q, k, v = draw(spec, len(lengths), 300, rng)
    lists = [random_list(300, length, rng) for length in lengths]
    check(spec, "host", host_target, q, k, v, lists)


@every_variant
def test_every_variant(variant: str, host_target: tvm.target.Target) -> None:
    rng = np.random.default_rng(2)
    q, k, v = draw(SMALL, 37, 513, rng)
    lists = [random_list(513, int(length), rng) for length in rng.integers(0, 514, 37)]
    check(SMALL, variant, host_target, q, k, v, lists)


@every_variant
def test_clustered_lists(variant: str, host_target: tvm.target.Target) -> None:
    # All of a list in one block of keys, at the start, or at the very end.
    rng = np.random.default_rng(3)
    q, k, v = draw(SMALL, 4, 1000, rng)
    ranges = [(0, 130), (500, 517), (999, 1000), (990, 1000)]
    lists = [np.arange(*limits, dtype=np.int32) for limits in ranges]
    check(SMALL, variant, host_target, q, k, v, lists)


def test_only_empty_lists(host_target: tvm.target.Target) -> None:
    rng = np.random.default_rng(4)
    q, k, v = draw(SMALL, 3, 20, rng)
    empty = np.array([], np.int32)
    check(SMALL, "host", host_target, q, k, v, [empty] * 3)
    assert twin(q[:, 0], k, v, [empty] * 3, 0.1)[1].tolist() == [EMPTY_LSE] * 3


@every_variant
def test_scores_far_apart(variant: str, host_target: tvm.target.Target) -> None:
    rng = np.random.default_rng(6)
    q, k, v = draw(SMALL, 8, 64, rng)
    q *= 300.0
    lists = [random_list(64, 33, rng) for _ in range(8)]
    # Scores in the thousands are rounded by up to 1e-4 in float32, and weights follow them.
    check(SMALL, variant, host_target, q, k, v, lists, {"rtol": 1e-3, "atol": 1e-3})
