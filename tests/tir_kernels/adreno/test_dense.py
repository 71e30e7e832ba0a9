"""Adreno's dense kernels in their slots: ragged and paged prefill, decode, in both storages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import tvm

from tir_kernels.constants import EMPTY_LSE
from tir_kernels.reference import attention as twin
from tir_kernels.spec import AttentionSpec

from ..dense_harness import (
    LARGE_SPREAD,
    LARGE_TOLERANCE,
    ODD_DIMS,
    SMOLLM2,
    SPECS,
    TOLERANCE,
    indptr,
    output_tolerance,
    paged_batch,
    run_paged_decode,
    run_paged_prefill,
    run_ragged_prefill,
    spec_id,
)
from .conftest import Kernel

MANY_HEADS = AttentionSpec(num_q_heads=36, num_kv_heads=2, head_dim=128, sm_scale=0.1)
"""More heads in a group than a work-group has rows."""

EVERY_SPEC = [
    replace(spec, dtype=dtype)
    for dtype in ("float32", "float16")
    for spec in [*SPECS[1:], MANY_HEADS]
]

PREFILL_LENGTHS = [
    ([1], [1]),
    ([50], [17]),
    ([97], [203]),
    ([0, 5, 33, 2], [40, 0, 100, 31]),
    ([12, 0, 60], [0, 0, 3]),
]
"""Queries and keys per sequence: around a page and a tile, without a past, without queries."""

DECODE_LENGTHS = [[1], [257], [1000], [0], [0, 3, 300, 0, 16, 0]]
"""Keys per sequence: around a page and a split; batches with empty sequences."""

every_spec = pytest.mark.parametrize("spec", EVERY_SPEC, ids=spec_id)
Kernels = Callable[[str, object], Kernel]


def draw(spec: AttentionSpec, rows: int, heads: int, rng: np.random.Generator) -> np.ndarray:
    return rng.standard_normal((rows, heads, spec.head_dim), dtype=np.float32).astype(spec.dtype)


def compare(
    spec: AttentionSpec,
    got: tuple[np.ndarray, np.ndarray],
    want: tuple[np.ndarray, np.ndarray],
    tolerance: dict[str, float] = TOLERANCE,
) -> None:
    np.testing.assert_allclose(got[0], want[0], **output_tolerance(spec, tolerance))
    np.testing.assert_allclose(got[1], want[1], **tolerance)


@every_spec
@pytest.mark.parametrize("causal", [False, True])
def test_paged_prefill(spec: AttentionSpec, causal: bool, opencl_kernel: Kernels) -> None:
    kernel = opencl_kernel("paged_prefill", spec)
    for q_lengths, kv_lengths in PREFILL_LENGTHS:
        rng = np.random.default_rng(sum(kv_lengths))
        q, q_indptr = draw(spec, sum(q_lengths), spec.num_q_heads, rng), indptr(q_lengths)
        batch = paged_batch(spec, kv_lengths, rng)
        got = run_paged_prefill(kernel, spec, q, q_indptr, batch, causal)
        pages = (batch.pages, batch.page_indptr, batch.page_values, batch.last_page_len)
        compare(spec, got, twin.paged_prefill(spec, q, q_indptr, *pages, causal))


@every_spec
@pytest.mark.parametrize("causal", [False, True])
def test_ragged_prefill(spec: AttentionSpec, causal: bool, opencl_kernel: Kernels) -> None:
    kernel = opencl_kernel("ragged_prefill", spec)
    for q_lengths, kv_lengths in PREFILL_LENGTHS:
        rng = np.random.default_rng(sum(kv_lengths))
        q = draw(spec, sum(q_lengths), spec.num_q_heads, rng)
        k, v = (draw(spec, sum(kv_lengths), spec.num_kv_heads, rng) for _ in range(2))
        rows = (q, indptr(q_lengths), k, v, indptr(kv_lengths), causal)
        got = run_ragged_prefill(kernel, spec, *rows)
        compare(spec, got, twin.ragged_prefill(spec, *rows))


@every_spec
def test_decode(spec: AttentionSpec, opencl_kernel: Kernels) -> None:
    kernel = opencl_kernel("paged_decode", spec)
    for kv_lengths in DECODE_LENGTHS:
        rng = np.random.default_rng(sum(kv_lengths))
        q = draw(spec, len(kv_lengths), spec.num_q_heads, rng)
        batch = paged_batch(spec, kv_lengths, rng)
        got = run_paged_decode(kernel, spec, q, batch)
        pages = (batch.pages, batch.page_indptr, batch.page_values, batch.last_page_len)
        compare(spec, got, twin.paged_decode(spec, q, *pages))
        assert (got[1][np.array(kv_lengths) == 0] == EMPTY_LSE).all()


@every_spec
def test_merge_states(spec: AttentionSpec, opencl_kernel: Kernels) -> None:
    """Parts of no keys among them, on either side and on both."""
    rng = np.random.default_rng(1)
    rows, heads = 7, spec.num_q_heads
    values = [draw(spec, rows, heads, rng) for _ in range(2)]
    lse = [10 * rng.standard_normal((rows, heads), dtype=np.float32) for _ in range(2)]
    for part, empty in ((0, 2), (1, 3), (0, 4), (1, 4)):
        values[part][empty], lse[part][empty] = 0, EMPTY_LSE
    want = twin.merge_states(values[0], lse[0], values[1], lse[1])
    tensors = [tvm.runtime.tensor(a) for a in (values[0], lse[0], values[1], lse[1])]
    opencl_kernel("merge_states", spec)(*tensors)
    compare(spec, (tensors[0].numpy(), tensors[1].numpy()), want)
    np.testing.assert_array_equal(tensors[1].numpy()[4], np.float32(EMPTY_LSE))


def test_scores_in_the_thousands(opencl_kernel: Kernels) -> None:
    rng = np.random.default_rng(0)
    q = draw(SMOLLM2, 20, SMOLLM2.num_q_heads, rng) * np.float32(LARGE_SPREAD)
    batch = paged_batch(SMOLLM2, [70], rng)
    pages = (batch.pages, batch.page_indptr, batch.page_values, batch.last_page_len)
    kernel = opencl_kernel("paged_prefill", SMOLLM2)
    got = run_paged_prefill(kernel, SMOLLM2, q, indptr([20]), batch, False)
    want = twin.paged_prefill(SMOLLM2, q, indptr([20]), *pages, False)
    compare(SMOLLM2, got, want, LARGE_TOLERANCE)


def test_rows_of_no_sequence_are_left_alone(opencl_kernel: Kernels) -> None:
    spec = ODD_DIMS
    rng = np.random.default_rng(0)
    q = draw(spec, 9, spec.num_q_heads, rng)
    batch = paged_batch(spec, [20], rng)
    kernel = opencl_kernel("paged_prefill", spec)
    starts = np.array([2, 7], np.int32)
    output, lse = run_paged_prefill(kernel, spec, q, starts, batch, False)
    assert np.isnan(output[[0, 1, 7, 8]]).all()
    assert np.isfinite(output[2:7]).all()
    assert np.isfinite(lse[2:7]).all()
