"""The sparse baselines in the paged-prefill slot: the twins' selections, exact attention over them.

What can break them: ragged batches with empty sides, lengths that are multiples of nothing, short
last blocks, ties, negative scores, heads and layers whose budgets differ. Float scores leave some
selections to rounding; the twin says which, and those rows aren't compared.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import tvm
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm import tirx

from tir_kernels.baselines.selective_prefill import (
    block_sparse_paged_prefill,
    exact_sparse_paged_prefill,
)
from tir_kernels.build import build_kernels
from tir_kernels.constants import EMPTY_LSE, RATIO_ONE
from tir_kernels.features import CpuFeatures, cpu_features
from tir_kernels.reference.selective_prefill import (
    BLOCK_MEANS,
    EXACT,
    Scoring,
    selective_paged_prefill,
)
from tir_kernels.spec import AttentionSpec, HeadParameters, ShadowSpec

from ..dense_harness import (
    HALF,
    SMOLLM2,
    SPECS,
    TOLERANCE,
    PagedBatch,
    indptr,
    output_tolerance,
    paged_batch,
    run_paged_prefill,
    spec_id,
)
from ..shadow_harness import VARIANTS, features_of

Factory = Callable[[ShadowSpec, CpuFeatures], tirx.PrimFunc]

BASELINES: dict[str, tuple[Factory, Scoring]] = {
    "exact": (exact_sparse_paged_prefill, EXACT),
    "blocks": (block_sparse_paged_prefill, BLOCK_MEANS),
}

K_MIN = 5
NUM_LAYERS = 3
SPARSE_LAYER, MIXED_LAYER, DENSE_LAYER = range(NUM_LAYERS)
MIXED_RATIOS = [0, RATIO_ONE // 8, RATIO_ONE // 2, RATIO_ONE - 1, RATIO_ONE]
RATIOS = {SPARSE_LAYER: [RATIO_ONE // 5], MIXED_LAYER: MIXED_RATIOS, DENSE_LAYER: [RATIO_ONE]}

LENGTHS = [
    ([1], [1]),
    ([7], [16]),
    ([50], [171]),
    ([64], [128]),
    ([130], [403]),
    ([0, 5, 33, 2], [40, 0, 100, 31]),
    ([12, 0, 70], [0, 0, 333]),
]
"""Queries and keys per sequence: around a page, a tile and a block, without a past or queries."""


def spec_of(geometry: AttentionSpec) -> ShadowSpec:
    """Of a plan, just the budget matters."""
    layers = tuple(
        tuple(
            HeadParameters(0.03, 0.03, RATIOS[layer][head % len(RATIOS[layer])])
            for head in range(geometry.num_q_heads)
        )
        for layer in range(NUM_LAYERS)
    )
    return ShadowSpec(geometry, layers, bucket_sigma=0.5, k_min=K_MIN)


@cache
def compiled(
    name: str, spec: ShadowSpec, variant: str, target: tvm.target.Target
) -> tvm.runtime.Executable:
    kernel = BASELINES[name][0](spec, features_of(variant, target))
    return build_kernels({"kernel": kernel}, target)


def draw(
    geometry: AttentionSpec, q_lengths: list[int], kv_lengths: list[int]
) -> tuple[np.ndarray, np.ndarray, PagedBatch]:
    rng = np.random.default_rng(sum(q_lengths) + 1000 * sum(kv_lengths))
    q_indptr = indptr(q_lengths)
    shape = (q_indptr[-1], geometry.num_q_heads, geometry.head_dim)
    q = rng.standard_normal(shape, dtype=np.float32)
    return q.astype(geometry.dtype), q_indptr, paged_batch(geometry, kv_lengths, rng)


def check(
    name: str,
    target: tvm.target.Target,
    geometry: AttentionSpec,
    layer: int,
    q: np.ndarray,
    q_indptr: np.ndarray,
    batch: PagedBatch,
    causal: bool = False,
    variant: str = "host",
    compared: float = 0.9,
) -> None:
    """`compared`: the least part of the rows that must not hang on rounding."""
    spec = spec_of(geometry)
    kernel = compiled(name, spec, variant, target)["kernel"]
    output, lse = run_paged_prefill(kernel, geometry, q, q_indptr, batch, causal, layer)
    want_output, want_lse, decided = selective_paged_prefill(
        spec,
        BASELINES[name][1],
        layer,
        q,
        q_indptr,
        batch.pages,
        batch.page_indptr,
        batch.page_values,
        batch.last_page_len,
        causal,
    )
    assert np.isfinite(output).all()
    assert np.isfinite(lse).all()
    assert decided.size == 0 or decided.mean() >= compared
    np.testing.assert_allclose(output[decided], want_output[decided], **output_tolerance(geometry))
    np.testing.assert_allclose(lse[decided], want_lse[decided], **TOLERANCE)


@pytest.mark.parametrize("geometry", [*SPECS, HALF], ids=spec_id)
@pytest.mark.parametrize("name", BASELINES)
def test_kernel_equals_twin(
    name: str, geometry: AttentionSpec, host_target: tvm.target.Target
) -> None:
    for lengths in LENGTHS:
        check(name, host_target, geometry, MIXED_LAYER, *draw(geometry, *lengths))


@pytest.mark.parametrize("variant", VARIANTS[1:])
@pytest.mark.parametrize("name", BASELINES)
def test_every_vector_unit(name: str, variant: str, host_target: tvm.target.Target) -> None:
    for lengths in LENGTHS:
        check(name, host_target, SMOLLM2, MIXED_LAYER, *draw(SMOLLM2, *lengths), variant=variant)


@pytest.mark.parametrize("name", BASELINES)
def test_every_layer_has_its_budget(name: str, host_target: tvm.target.Target) -> None:
    for layer in range(NUM_LAYERS):
        check(name, host_target, SMOLLM2, layer, *draw(SMOLLM2, [70], [300]))


@pytest.mark.parametrize("name", BASELINES)
def test_a_causal_mask_is_dense(name: str, host_target: tvm.target.Target) -> None:
    drawn = draw(SMOLLM2, [33, 0, 20], [100, 7, 20])
    check(name, host_target, SMOLLM2, SPARSE_LAYER, *drawn, causal=True, compared=1.0)


@pytest.mark.parametrize("name", BASELINES)
@pytest.mark.parametrize("num_keys", [63, 64, 65, 255, 256])
def test_exact_ties_go_to_the_lower_index(
    name: str, num_keys: int, host_target: tvm.target.Target
) -> None:
    # Small integers: every score is exact in float32, zeros among them, and many are equal.
    q, q_indptr, batch = draw(SMOLLM2, [64], [num_keys])
    rng = np.random.default_rng(num_keys)
    q = rng.integers(-1, 2, q.shape).astype(np.float32)
    batch.pages[:, 0] = rng.integers(-1, 2, batch.pages[:, 0].shape)
    whole_blocks = name == "exact" or num_keys % 64 in (0, 63)
    check(
        name,
        host_target,
        SMOLLM2,
        SPARSE_LAYER,
        q,
        q_indptr,
        batch,
        compared=1.0 if whole_blocks else 0.5,
    )


@pytest.mark.parametrize("name", BASELINES)
def test_equal_keys_keep_the_first_ones(name: str, host_target: tvm.target.Target) -> None:
    q, q_indptr, batch = draw(SMOLLM2, [9], [203])
    for index in range(203):
        page, slot = divmod(index, SMOLLM2.page_size)
        batch.pages[batch.page_values[page], 0, :, slot] = 0.5
        batch.pages[batch.page_values[page], 1, :, slot] = index
    kernel = compiled(name, spec_of(SMOLLM2), "host", host_target)["kernel"]
    output, _ = run_paged_prefill(kernel, SMOLLM2, q, q_indptr, batch, False, SPARSE_LAYER)
    keep = -(-203 // 5)
    np.testing.assert_allclose(output, (keep - 1) / 2, rtol=1e-5)


@pytest.mark.parametrize("sign", [-1.0, 1.0])
def test_scores_of_one_sign(sign: float, host_target: tvm.target.Target) -> None:
    # The order of floats as integers turns around below zero.
    q, q_indptr, batch = draw(SMOLLM2, [40], [250])
    q = np.abs(q)
    batch.pages[:, 0] = sign * np.abs(batch.pages[:, 0])
    check("exact", host_target, SMOLLM2, MIXED_LAYER, q, q_indptr, batch)


@pytest.mark.parametrize("name", BASELINES)
def test_without_a_past_nothing_is_attended_to(name: str, host_target: tvm.target.Target) -> None:
    q, q_indptr, batch = draw(SMOLLM2, [3], [0])
    kernel = compiled(name, spec_of(SMOLLM2), "host", host_target)["kernel"]
    output, lse = run_paged_prefill(kernel, SMOLLM2, q, q_indptr, batch, False, SPARSE_LAYER)
    np.testing.assert_array_equal(output, 0.0)
    np.testing.assert_array_equal(lse, EMPTY_LSE)


@pytest.mark.parametrize("name", BASELINES)
@settings(deadline=None, max_examples=25)
@given(lengths=st.lists(st.tuples(st.integers(0, 70), st.integers(0, 150)), min_size=1, max_size=4))
def test_any_lengths(
    name: str, lengths: list[tuple[int, int]], host_target: tvm.target.Target
) -> None:
    q_lengths, kv_lengths = ([pair[side] for pair in lengths] for side in (0, 1))
    drawn = draw(SMOLLM2, q_lengths, kv_lengths)
    check(name, host_target, SMOLLM2, MIXED_LAYER, *drawn, compared=0.5)


def test_an_unknown_layer_is_an_error(host_target: tvm.target.Target) -> None:
    q, q_indptr, batch = draw(SMOLLM2, [3], [20])
    kernel = compiled("exact", spec_of(SMOLLM2), "host", host_target)["kernel"]
    with pytest.raises(Exception, match="the plan has no such layer"):
        run_paged_prefill(kernel, SMOLLM2, q, q_indptr, batch, False, NUM_LAYERS)


@pytest.mark.parametrize("cpu", ["znver4", "cortex-a76"])
@pytest.mark.parametrize("name", BASELINES)
def test_compiles_for_other_targets(name: str, cpu: str) -> None:
    triple = {"znver4": "x86_64-linux-gnu", "cortex-a76": "aarch64-linux-gnu"}[cpu]
    target = tvm.target.Target({"kind": "llvm", "mtriple": triple, "mcpu": cpu})
    kernel = BASELINES[name][0](spec_of(SMOLLM2), cpu_features(target))
    assembly = build_kernels({"kernel": kernel}, target).mod.inspect_source("asm")
    assert {"znver4": "vfmadd", "cortex-a76": "fmla"}[cpu] in assembly
