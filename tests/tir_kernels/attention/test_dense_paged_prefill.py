"""A chunk against older pages: part-filled pages, empty pasts, both masks."""

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
    SMOLLM2,
    SPECS,
    TOLERANCE,
    dense_kernel,
    indptr,
    output_tolerance,
    paged_batch,
    run_paged_prefill,
    spec_id,
)

LENGTHS = [
    ([1], [1]),
    ([7], [16]),
    ([50], [17]),
    ([48], [48]),
    ([97], [203]),
    ([0, 5, 33, 2], [40, 0, 100, 31]),
    ([12, 0, 60], [0, 0, 3]),
]
"""Queries and keys per sequence: around a page and a tile, without a past, without queries."""


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
    q_indptr = indptr(q_lengths)
    q = rng.standard_normal((q_indptr[-1], spec.num_q_heads, spec.head_dim), dtype=np.float32)
    q = (q * spread).astype(spec.dtype)
    batch = paged_batch(spec, kv_lengths, rng)
    got = run_paged_prefill(
        dense_kernel("paged_prefill", spec, target), spec, q, q_indptr, batch, causal
    )
    want = twin.paged_prefill(
        spec,
        q,
        q_indptr,
        batch.pages,
        batch.page_indptr,
        batch.page_values,
        batch.last_page_len,
        causal,
    )
    np.testing.assert_allclose(got[0], want[0], **output_tolerance(spec, tolerance))
    np.testing.assert_allclose(got[1], want[1], **tolerance)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("spec", [*SPECS[1:], HALF, HALF_ODD_DIMS], ids=spec_id)
def test_kernel_equals_twin(
    spec: AttentionSpec, causal: bool, host_target: tvm.target.Target
) -> None:
    for q_lengths, kv_lengths in LENGTHS:
        check(spec, host_target, q_lengths, kv_lengths, causal)


@settings(deadline=None, max_examples=40)
@given(
    lengths=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 150)), min_size=1, max_size=5),
    causal=st.booleans(),
)
def test_any_lengths(
    lengths: list[tuple[int, int]], causal: bool, host_target: tvm.target.Target
) -> None:
    q_lengths, kv_lengths = ([pair[side] for pair in lengths] for side in (0, 1))
    check(SMOLLM2, host_target, q_lengths, kv_lengths, causal)


def test_scores_in_the_thousands(host_target: tvm.target.Target) -> None:
    check(
        SMOLLM2,
        host_target,
        [20],
        [70],
        causal=False,
        spread=LARGE_SPREAD,
        tolerance=LARGE_TOLERANCE,
    )


def test_without_a_past_nothing_is_attended_to(host_target: tvm.target.Target) -> None:
    spec = SMOLLM2
    rng = np.random.default_rng(0)
    q = rng.standard_normal((3, spec.num_q_heads, spec.head_dim), dtype=np.float32)
    batch = paged_batch(spec, [0], rng)
    output, lse = run_paged_prefill(
        dense_kernel("paged_prefill", spec, host_target), spec, q, indptr([3]), batch, causal=False
    )
    np.testing.assert_array_equal(output, 0.0)
    np.testing.assert_array_equal(lse, EMPTY_LSE)
