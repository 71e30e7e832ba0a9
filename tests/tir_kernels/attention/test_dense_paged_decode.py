"""One token per sequence against its pages: splits, batches, empty sequences."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pytest
import tvm
from hypothesis import given, settings
from hypothesis import strategies as st

from tir_kernels.constants import EMPTY_LSE
from tir_kernels.reference import attention as twin
from tir_kernels.spec import AttentionSpec

from ..dense_harness import (
    HALF,
    HALF_ODD_DIMS,
    LARGE_SPREAD,
    LARGE_TOLERANCE,
    SMOLLM2,
    SPECS,
    TOLERANCE,
    dense_kernel,
    output_tolerance,
    paged_batch,
    run_paged_decode,
    spec_id,
)

LENGTHS = [[1], [15], [64], [65], [256], [257], [1000], [0], [0, 3, 300, 0, 16, 0], [600, 600]]
"""Keys per sequence: around a page, a block and a split; batches with empty sequences."""


def check(
    spec: AttentionSpec,
    target: tvm.target.Target,
    kv_lengths: list[int],
    spread: float = 1.0,
    tolerance: Mapping[str, float] = TOLERANCE,
) -> None:
    rng = np.random.default_rng(sum(kv_lengths))
    q = rng.standard_normal((len(kv_lengths), spec.num_q_heads, spec.head_dim), dtype=np.float32)
    q = (q * spread).astype(spec.dtype)
    batch = paged_batch(spec, kv_lengths, rng)
    got = run_paged_decode(dense_kernel("paged_decode", spec, target), spec, q, batch)
    want = twin.paged_decode(
        spec, q, batch.pages, batch.page_indptr, batch.page_values, batch.last_page_len
    )
    np.testing.assert_allclose(got[0], want[0], **output_tolerance(spec, tolerance))
    np.testing.assert_allclose(got[1], want[1], **tolerance)


@pytest.mark.parametrize("spec", [*SPECS, HALF, HALF_ODD_DIMS], ids=spec_id)
def test_kernel_equals_twin(spec: AttentionSpec, host_target: tvm.target.Target) -> None:
    for kv_lengths in LENGTHS:
        check(spec, host_target, kv_lengths)


@settings(deadline=None, max_examples=40)
@given(kv_lengths=st.lists(st.integers(0, 530), min_size=1, max_size=6))
def test_any_lengths(kv_lengths: list[int], host_target: tvm.target.Target) -> None:
    check(SMOLLM2, host_target, kv_lengths)


def test_scores_in_the_thousands(host_target: tvm.target.Target) -> None:
    check(SMOLLM2, host_target, [400], spread=LARGE_SPREAD, tolerance=LARGE_TOLERANCE)


def test_a_reserved_page_without_keys(host_target: tvm.target.Target) -> None:
    """The runtime may hand out a page before it holds anything."""
    rng = np.random.default_rng(2)
    q = rng.standard_normal((1, SMOLLM2.num_q_heads, SMOLLM2.head_dim), dtype=np.float32)
    batch = replace(paged_batch(SMOLLM2, [5], rng), last_page_len=np.zeros(1, np.int32))
    kernel = dense_kernel("paged_decode", SMOLLM2, host_target)
    output, lse = run_paged_decode(kernel, SMOLLM2, q, batch)
    np.testing.assert_array_equal(output, 0.0)
    np.testing.assert_array_equal(lse, EMPTY_LSE)
