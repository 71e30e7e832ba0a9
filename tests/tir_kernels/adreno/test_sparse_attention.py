"""Sparse gather attention: a list per query and head, of every length, in both storages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from tir_kernels.constants import EMPTY_LSE
from tir_kernels.reference.sparse_attention import sparse_attention as twin
from tir_kernels.spec import AttentionSpec

from ..dense_harness import (
    LARGE_SPREAD,
    LARGE_TOLERANCE,
    SMOLLM2,
    SPECS,
    TOLERANCE,
    output_tolerance,
    spec_id,
)
from .conftest import Kernel

EVERY_SPEC = [replace(spec, dtype=dtype) for dtype in ("float32", "float16") for spec in SPECS[1:]]


def check(
    kernel: Kernel,
    spec: AttentionSpec,
    counts: np.ndarray,
    num_keys: int,
    spread: float = 1.0,
    tolerance: dict[str, float] = TOLERANCE,
) -> np.ndarray:
    """Lists of `counts` (m, Hq) random keys; entries beyond them are far out of bounds."""
    rng = np.random.default_rng(num_keys)
    num_queries, heads = counts.shape
    q = rng.standard_normal((num_queries, heads, spec.head_dim)) * spread
    q = q.astype(spec.dtype)
    shape = (num_keys, spec.num_kv_heads, spec.head_dim)
    k, v = (rng.standard_normal(shape).astype(spec.dtype) for _ in range(2))
    indices = np.full((num_queries, heads, num_keys + 1), 2**30, np.int32)
    for i, h in np.ndindex(*counts.shape):
        chosen = rng.choice(num_keys, counts[i, h], replace=False)
        indices[i, h, : counts[i, h]] = np.sort(chosen)
    output, lse = np.full(q.shape, np.nan, spec.dtype), np.full(q.shape[:2], np.nan, np.float32)
    kernel(q, k, v, indices, counts, output, lse)
    for head in range(heads):
        kv_head = head // spec.group_size
        lists = [indices[i, head, : counts[i, head]] for i in range(num_queries)]
        want = twin(q[:, head], k[:, kv_head], v[:, kv_head], lists, spec.sm_scale)
        np.testing.assert_allclose(output[:, head], want[0], **output_tolerance(spec, tolerance))
        np.testing.assert_allclose(lse[:, head], want[1], **tolerance)
    return lse


@pytest.mark.parametrize("spec", EVERY_SPEC, ids=spec_id)
def test_kernel_equals_twin(
    spec: AttentionSpec, opencl_kernel: Callable[[str, object], Kernel]
) -> None:
    kernel, num_keys = opencl_kernel("sparse_attention", spec), 301
    counts = np.random.default_rng(1).integers(0, num_keys, (7, spec.num_q_heads), np.int32)
    counts[:4, 0] = [0, 1, num_keys, 129]
    lse = check(kernel, spec, counts, num_keys)
    assert lse[0, 0] == EMPTY_LSE


def test_scores_in_the_thousands(opencl_kernel: Callable[[str, object], Kernel]) -> None:
    kernel = opencl_kernel("sparse_attention", replace(SMOLLM2, dtype="float32"))
    counts = np.full((3, SMOLLM2.num_q_heads), 70, np.int32)
    check(kernel, SMOLLM2, counts, 90, LARGE_SPREAD, LARGE_TOLERANCE)
