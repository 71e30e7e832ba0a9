"""A chunk against itself: odd lengths, empty sequences, keys without queries and the reverse."""

from __future__ import annotations

from collections.abc import Mapping

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
    ODD_DIMS,
    SMOLLM2,
    TOLERANCE,
    dense_kernel,
    indptr,
    output_tolerance,
    run_ragged_prefill,
    spec_id,
)

LENGTHS = [
    ([1], [1]),
    ([5], [5]),
    ([48], [48]),
    ([49], [49]),
    ([131], [131]),
    ([0, 17, 0, 64, 1, 0], [0, 17, 0, 64, 1, 0]),
    ([3, 20, 50], [40, 20, 7]),
    ([4, 0, 2], [0, 9, 2]),
]
"""Queries and keys per sequence: around a tile, in a batch with holes, and unequal."""


def check(
    spec: AttentionSpec,
    target: tvm.target.Target,
    q_lengths: list[int],
    kv_lengths: list[int],
    causal: bool,
    spread: float = 1.0,
    tolerance: Mapping[str, float] = TOLERANCE,
) -> None:
    rng = np.random.default_rng(sum(q_lengths) + 1000 * sum(kv_lengths))
    outside = 2  # rows before the first and after the last sequence, not to be touched
    q_indptr, kv_indptr = indptr(q_lengths) + outside, indptr(kv_lengths)
    total = q_indptr[-1] + outside
    q = rng.standard_normal((total, spec.num_q_heads, spec.head_dim), dtype=np.float32) * spread
    kv_shape = (2, kv_indptr[-1], spec.num_kv_heads, spec.head_dim)
    k, v = rng.standard_normal(kv_shape, dtype=np.float32).astype(spec.dtype)
    got = run_ragged_prefill(
        dense_kernel("ragged_prefill", spec, target),
        spec,
        q.astype(spec.dtype),
        q_indptr.astype(np.int32),
        k,
        v,
        kv_indptr,
        causal,
    )
    want = twin.ragged_prefill(spec, q.astype(spec.dtype), q_indptr, k, v, kv_indptr, causal)
    np.testing.assert_allclose(got[0], want[0], **output_tolerance(spec, tolerance))
    np.testing.assert_allclose(got[1], want[1], **tolerance)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("spec", [SMOLLM2, ODD_DIMS, HALF, HALF_ODD_DIMS], ids=spec_id)
def test_kernel_equals_twin(
    spec: AttentionSpec, causal: bool, host_target: tvm.target.Target
) -> None:
    for q_lengths, kv_lengths in LENGTHS:
        check(spec, host_target, q_lengths, kv_lengths, causal)


@settings(deadline=None, max_examples=40)
@given(
    lengths=st.lists(st.tuples(st.integers(0, 110), st.integers(0, 110)), min_size=1, max_size=5),
    causal=st.booleans(),
)
def test_any_lengths(
    lengths: list[tuple[int, int]], causal: bool, host_target: tvm.target.Target
) -> None:
    q_lengths, kv_lengths = ([pair[side] for pair in lengths] for side in (0, 1))
    check(SMOLLM2, host_target, q_lengths, kv_lengths, causal)


def test_scores_in_the_thousands(host_target: tvm.target.Target) -> None:
    """One key takes all the weight; nothing overflows on the way."""
    check(
        SMOLLM2,
        host_target,
        [60],
        [60],
        causal=True,
        spread=LARGE_SPREAD,
        tolerance=LARGE_TOLERANCE,
    )


def test_queries_that_see_no_key(host_target: tvm.target.Target) -> None:
    """Five queries, two keys, causal: the first three are before any key."""
    spec = SMOLLM2
    rng = np.random.default_rng(7)
    q, k, v = (
        rng.standard_normal((n, heads, spec.head_dim), dtype=np.float32)
        for n, heads in ((5, spec.num_q_heads), (2, spec.num_kv_heads), (2, spec.num_kv_heads))
    )
    output, lse = run_ragged_prefill(
        dense_kernel("ragged_prefill", spec, host_target),
        spec,
        q,
        indptr([5]),
        k,
        v,
        indptr([2]),
        causal=True,
    )
    np.testing.assert_array_equal(output[:3], 0.0)
    np.testing.assert_array_equal(lse[:3], EMPTY_LSE)
    first_values = np.repeat(v[0], spec.group_size, axis=0)
    np.testing.assert_allclose(output[3], first_values, **TOLERANCE)  # one key: its value
