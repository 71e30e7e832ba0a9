"""shadowAttn in Adreno's paged-prefill slot: the twin's lists, exact attention over them.

The values of different keys are unrelated, so one wrong key in a list shows in the output.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from shadowattn_tvm.errors import ShadowAttnError
from tir_kernels.reference import shadow_prefill as twin
from tir_kernels.spec import AttentionSpec, PilotSpec, ShadowSpec

from ..dense_harness import (
    ODD_DIMS,
    SMOLLM2,
    TOLERANCE,
    PagedBatch,
    indptr,
    output_tolerance,
    paged_batch,
    run_paged_prefill,
)
from ..shadow.test_prefill import (
    DENSE_LAYER,
    MIXED_LAYER,
    NUM_LAYERS,
    SHARING,
    SPARSE_LAYER,
    shadow_spec,
)
from ..shadow_harness import with_strides
from .conftest import Kernel

PILOTS = {
    "per-query": PilotSpec(),
    "bytes": PilotSpec(score_bits=8),
    "6-bit-rotated": PilotSpec(bits=6, hadamard_rotation=True, score_bits=9),
    **SHARING,
}

HALF_TOO = ("per-query", "6-bit-rotated", "group-block-32")
"""Pilots that are run on float16 too; what differs is loads, and those have all of these."""

CASES = [(pilot, "float32") for pilot in PILOTS] + [(pilot, "float16") for pilot in HALF_TOO]

LENGTHS = [
    ([7], [16]),
    ([0, 5, 33, 2], [40, 0, 100, 31]),
    ([12, 0, 60], [0, 0, 333]),
]
"""Queries and keys per sequence: around a page, without a past, without queries."""

Kernels = Callable[[str, object], Kernel]


def with_means(spec: ShadowSpec) -> ShadowSpec:
    """`spec` with a mean for every dimension of every KV head."""
    geometry = spec.attention
    shape = (spec.num_layers, geometry.num_kv_heads, geometry.head_dim)
    means = np.random.default_rng(5).standard_normal(shape, dtype=np.float32)
    return replace(spec, key_means=tuple(tuple(map(tuple, layer)) for layer in means.tolist()))


def check(
    kernel: Kernel,
    spec: ShadowSpec,
    layer: int,
    q: np.ndarray,
    q_indptr: np.ndarray,
    batch: PagedBatch,
    causal: bool = False,
) -> None:
    got = run_paged_prefill(kernel, spec.attention, q, q_indptr, batch, causal, layer)
    want = twin.shadow_paged_prefill(
        spec,
        layer,
        q.astype(np.float32),
        q_indptr,
        batch.pages.astype(np.float32),
        batch.page_indptr,
        batch.page_values,
        batch.last_page_len,
        causal,
    )
    np.testing.assert_allclose(got[0], want[0], **output_tolerance(spec.attention))
    np.testing.assert_allclose(got[1], want[1], **TOLERANCE)


def draw(
    geometry: AttentionSpec, q_lengths: list[int], kv_lengths: list[int]
) -> tuple[np.ndarray, np.ndarray, PagedBatch]:
    rng = np.random.default_rng(sum(q_lengths) + 1000 * sum(kv_lengths))
    shape = (sum(q_lengths), geometry.num_q_heads, geometry.head_dim)
    q = rng.standard_normal(shape, dtype=np.float32).astype(geometry.dtype)
    return q, indptr(q_lengths), paged_batch(geometry, kv_lengths, rng)


@pytest.mark.parametrize(("pilot", "dtype"), CASES)
def test_kernel_equals_twin(pilot: str, dtype: str, opencl_kernel: Kernels) -> None:
    spec = shadow_spec(replace(SMOLLM2, dtype=dtype), PILOTS[pilot])
    if PILOTS[pilot].hadamard_rotation:
        spec = with_means(spec)
    kernel = opencl_kernel("shadow_prefill", spec)
    for q_lengths, kv_lengths in LENGTHS:
        for layer in (SPARSE_LAYER, MIXED_LAYER):
            check(kernel, spec, layer, *draw(spec.attention, q_lengths, kv_lengths))
    check(kernel, spec, DENSE_LAYER, *draw(spec.attention, [20], [33]))
    check(kernel, spec, SPARSE_LAYER, *draw(spec.attention, [20], [33]), causal=True)


@pytest.mark.parametrize("pilot", ["block-8", "group-block-32"])
def test_a_sample_of_queries_votes(pilot: str, opencl_kernel: Kernels) -> None:
    spec = with_strides(shadow_spec(SMOLLM2, PILOTS[pilot]))
    kernel = opencl_kernel("shadow_prefill", spec)
    for q_lengths, kv_lengths in LENGTHS:
        for layer in (SPARSE_LAYER, MIXED_LAYER):
            check(kernel, spec, layer, *draw(spec.attention, q_lengths, kv_lengths))


@pytest.mark.parametrize(
    ("pilot", "dtype"),
    [(pilot, "float32") for pilot in ("per-query", *SHARING)] + [("block-8", "float16")],
)
def test_the_rest_by_its_mean(pilot: str, dtype: str, opencl_kernel: Kernels) -> None:
    spec = shadow_spec(replace(SMOLLM2, dtype=dtype), PILOTS[pilot])
    spec = replace(spec, rest="mean", k_min=1)
    kernel = opencl_kernel("shadow_prefill", spec)
    for q_lengths, kv_lengths in [*LENGTHS, ([9, 3, 4], [3, 4, 5]), ([2], [4200])]:
        for layer in (SPARSE_LAYER, MIXED_LAYER):
            check(kernel, spec, layer, *draw(spec.attention, q_lengths, kv_lengths))


def test_a_head_dim_that_is_no_power_of_two(opencl_kernel: Kernels) -> None:
    spec = replace(with_means(shadow_spec(ODD_DIMS, PILOTS["6-bit-rotated"])), rest="mean")
    kernel = opencl_kernel("shadow_prefill", spec)
    check(kernel, spec, MIXED_LAYER, *draw(ODD_DIMS, [21], [150]))


@pytest.mark.parametrize("pilot", ["per-query", "group-block-32"])
def test_ties_go_to_the_lower_index(pilot: str, opencl_kernel: Kernels) -> None:
    """Keys of a few values each, so that most scores are equal."""
    spec = shadow_spec(SMOLLM2, PILOTS[pilot])
    q, q_indptr, batch = draw(SMOLLM2, [40], [203])
    batch.pages[:, 0] = np.sign(batch.pages[:, 0]) * (np.arange(SMOLLM2.head_dim) < 3)
    check(opencl_kernel("shadow_prefill", spec), spec, SPARSE_LAYER, q, q_indptr, batch)


def test_a_layer_that_the_plan_does_not_have(opencl_kernel: Kernels) -> None:
    spec = shadow_spec(SMOLLM2, PILOTS["per-query"])
    kernel = opencl_kernel("shadow_prefill", spec)
    with pytest.raises(ShadowAttnError, match="no such layer"):
        check(kernel, spec, NUM_LAYERS, *draw(SMOLLM2, [3], [40]))
