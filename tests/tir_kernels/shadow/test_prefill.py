"""shadowAttn in the paged-prefill slot: the twin's selection, exact attention over it.

What can break it: ragged batches with empty sides, lengths that are multiples of nothing, ratios
from none to all mixed over heads, layers whose plans differ, scales far off their calibration.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tvm
from hypothesis import given, settings
from hypothesis import strategies as st

from tir_kernels.build import build_kernels
from tir_kernels.constants import EMPTY_LSE, RATIO_ONE, REST_SAMPLES, REST_STRIDE
from tir_kernels.features import cpu_features
from tir_kernels.reference import attention as dense_twin
from tir_kernels.reference import shadow_prefill as twin
from tir_kernels.shadow.prefill import shadow_paged_prefill
from tir_kernels.spec import AttentionSpec, HeadParameters, PilotSpec, ShadowSpec, keep_count

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
from ..shadow_harness import VARIANTS, X86_VARIANTS, shadow_module, with_strides

K_MIN = 5
NUM_LAYERS = 3
SPARSE_LAYER, MIXED_LAYER, DENSE_LAYER = range(NUM_LAYERS)
MIXED_RATIOS = [0, RATIO_ONE // 8, RATIO_ONE // 2, RATIO_ONE - 1, RATIO_ONE]

PLAIN = PilotSpec()

BYTES = PilotSpec(score_bits=8)

SHARING = {
    "group": PilotSpec(score_bits=8, share_group=True),
    "block-8": PilotSpec(score_bits=8, query_block=8),
    "group-block-32": PilotSpec(score_bits=8, share_group=True, query_block=32),
    "group-block-128": PilotSpec(score_bits=8, share_group=True, query_block=128),
}

LENGTHS = [
    ([1], [1]),
    ([7], [16]),
    ([50], [171]),
    ([97], [403]),
    ([0, 5, 33, 2], [40, 0, 100, 31]),
    ([12, 0, 60], [0, 0, 333]),
]
"""Queries and keys per sequence: around a page and a tile, without a past, without queries."""


def shadow_spec(geometry: AttentionSpec, pilot: PilotSpec = PLAIN) -> ShadowSpec:
    """A sparse layer, a layer of mixed ratios and a dense one; scales near what random data has,
    so that all three buckets occur. Heads that share lists have one ratio."""
    requant = ((1e-3,) * 3,) * 3 if pilot.requantize else None
    unit = geometry.group_size if pilot.share_group else 1
    rng = np.random.default_rng(geometry.head_dim)
    ratios = {
        SPARSE_LAYER: [RATIO_ONE // 5],
        MIXED_LAYER: MIXED_RATIOS,
        DENSE_LAYER: [RATIO_ONE],
    }
    layers = []
    for layer in range(NUM_LAYERS):
        k_scales = rng.uniform(0.01, 0.06, geometry.num_kv_heads)
        layers.append(
            tuple(
                HeadParameters(
                    q_scale=float(rng.uniform(0.01, 0.06)),
                    k_scale=float(k_scales[head // geometry.group_size]),
                    keep_ratio_q16=ratios[layer][head // unit % len(ratios[layer])],
                    requant=requant,
                )
                for head in range(geometry.num_q_heads)
            )
        )
    return ShadowSpec(geometry, tuple(layers), bucket_sigma=0.5, k_min=K_MIN, pilot=pilot)


def run(
    spec: ShadowSpec,
    target: tvm.target.Target,
    layer: int,
    q: np.ndarray,
    q_indptr: np.ndarray,
    batch: PagedBatch,
    causal: bool = False,
    variant: str = "host",
) -> tuple[np.ndarray, np.ndarray]:
    kernel = shadow_module(spec, variant, target)["shadow_prefill"]
    return run_paged_prefill(kernel, spec.attention, q, q_indptr, batch, causal, layer)


def draw(
    geometry: AttentionSpec, q_lengths: list[int], kv_lengths: list[int], spread: float = 1.0
) -> tuple[np.ndarray, np.ndarray, PagedBatch]:
    rng = np.random.default_rng(sum(q_lengths) + 1000 * sum(kv_lengths))
    q_indptr = indptr(q_lengths)
    shape = (q_indptr[-1], geometry.num_q_heads, geometry.head_dim)
    q = rng.standard_normal(shape, dtype=np.float32) * np.float32(spread)
    return q.astype(geometry.dtype), q_indptr, paged_batch(geometry, kv_lengths, rng)


def check(
    spec: ShadowSpec,
    target: tvm.target.Target,
    layer: int,
    q_lengths: list[int],
    kv_lengths: list[int],
    causal: bool = False,
    variant: str = "host",
    spread: float = 1.0,
) -> None:
    q, q_indptr, batch = draw(spec.attention, q_lengths, kv_lengths, spread)
    got = run(spec, target, layer, q, q_indptr, batch, causal, variant)
    want = twin.shadow_paged_prefill(
        spec,
        layer,
        q,
        q_indptr,
        batch.pages,
        batch.page_indptr,
        batch.page_values,
        batch.last_page_len,
        causal,
    )
    np.testing.assert_allclose(got[0], want[0], **output_tolerance(spec.attention))
    np.testing.assert_allclose(got[1], want[1], **TOLERANCE)


# Groups of one query head have their turn in the test with many layers and heads, below.
@pytest.mark.parametrize("geometry", [*SPECS[1:], HALF], ids=spec_id)
def test_kernel_equals_twin(geometry: AttentionSpec, host_target: tvm.target.Target) -> None:
    spec = shadow_spec(geometry)
    for q_lengths, kv_lengths in LENGTHS:
        for layer in range(NUM_LAYERS):
            check(spec, host_target, layer, q_lengths, kv_lengths)


@pytest.mark.parametrize("variant", VARIANTS[1:])
def test_every_vector_unit(variant: str, host_target: tvm.target.Target) -> None:
    spec = shadow_spec(SMOLLM2)
    for q_lengths, kv_lengths in LENGTHS:
        check(spec, host_target, MIXED_LAYER, q_lengths, kv_lengths, variant=variant)


def test_lists_of_bytes(host_target: tvm.target.Target) -> None:
    spec = shadow_spec(SMOLLM2, BYTES)
    for q_lengths, kv_lengths in LENGTHS:
        for layer in (SPARSE_LAYER, MIXED_LAYER):
            check(spec, host_target, layer, q_lengths, kv_lengths)


@pytest.mark.parametrize("variant", X86_VARIANTS)
def test_lists_of_bytes_on_every_vector_unit(variant: str, host_target: tvm.target.Target) -> None:
    spec = shadow_spec(SMOLLM2, BYTES)
    check(spec, host_target, MIXED_LAYER, [97, 5], [403, 31], variant=variant)


@pytest.mark.parametrize("sharing", SHARING)
def test_shared_lists(sharing: str, host_target: tvm.target.Target) -> None:
    spec = shadow_spec(SMOLLM2, SHARING[sharing])
    for q_lengths, kv_lengths in LENGTHS:
        for layer in (SPARSE_LAYER, MIXED_LAYER):
            check(spec, host_target, layer, q_lengths, kv_lengths)


@pytest.mark.parametrize("sharing", ["block-8", "group-block-32"])
def test_a_sample_of_queries_votes(sharing: str, host_target: tvm.target.Target) -> None:
    spec = with_strides(shadow_spec(SMOLLM2, SHARING[sharing]))
    for q_lengths, kv_lengths in LENGTHS:
        for layer in (SPARSE_LAYER, MIXED_LAYER):
            check(spec, host_target, layer, q_lengths, kv_lengths)


@pytest.mark.parametrize("geometry", [SMOLLM2, *SPECS[1:], HALF], ids=spec_id)
@pytest.mark.parametrize("sharing", ["nobody", "block-8", "group-block-32"])
def test_the_rest_by_its_mean(
    sharing: str, geometry: AttentionSpec, host_target: tvm.target.Target
) -> None:
    pilot = PLAIN if sharing == "nobody" else SHARING[sharing]
    spec = replace(shadow_spec(geometry, pilot), rest="mean")
    for q_lengths, kv_lengths in LENGTHS:
        for layer in (SPARSE_LAYER, MIXED_LAYER):
            check(spec, host_target, layer, q_lengths, kv_lengths)


@pytest.mark.parametrize("variant", VARIANTS[1:])
@pytest.mark.parametrize("sharing", ["nobody", "group-block-32"])
def test_the_rest_on_every_vector_unit(
    sharing: str, variant: str, host_target: tvm.target.Target
) -> None:
    pilot = PLAIN if sharing == "nobody" else SHARING[sharing]
    spec = replace(shadow_spec(SMOLLM2, pilot), rest="mean")
    check(spec, host_target, MIXED_LAYER, [97, 5], [403, 31], variant=variant)


@pytest.mark.parametrize("num_keys", [3, 4, 5, 12, 13])
def test_a_past_too_short_for_a_sample_has_no_rest(
    num_keys: int, host_target: tvm.target.Target
) -> None:
    spec = replace(shadow_spec(SMOLLM2, SHARING["block-8"]), rest="mean", k_min=1)
    check(spec, host_target, SPARSE_LAYER, [19], [num_keys])


@pytest.mark.parametrize("sharing", ["nobody", "block-8"])
def test_of_a_long_past_few_are_sampled(sharing: str, host_target: tvm.target.Target) -> None:
    pilot = PLAIN if sharing == "nobody" else SHARING[sharing]
    spec = replace(shadow_spec(SMOLLM2, pilot), rest="mean")
    check(spec, host_target, SPARSE_LAYER, [3], [REST_STRIDE * REST_SAMPLES + 77])


def test_where_all_keys_are_alike_the_rest_makes_it_dense(host_target: tvm.target.Target) -> None:
    # Each key on no list equals the mean, and so do all values that are not on one.
    spec = replace(shadow_spec(SMOLLM2), rest="mean")
    num_keys = 203
    q, q_indptr, batch = draw(SMOLLM2, [9], [num_keys])
    batch.pages[:, 0] = 0.5
    batch.pages[:, 1] = 3.0
    output, lse = run(spec, host_target, SPARSE_LAYER, q, q_indptr, batch)
    np.testing.assert_allclose(output, 3.0, rtol=1e-5)
    scores = q.astype(np.float64).sum(-1) * 0.5 * SMOLLM2.sm_scale
    np.testing.assert_allclose(lse, scores / np.log(2) + np.log2(num_keys), **TOLERANCE)


@pytest.mark.parametrize("spread", [0.3, 8.0])
def test_the_rest_stays_finite_where_scores_are_large(
    spread: float, host_target: tvm.target.Target
) -> None:
    for pilot in (PLAIN, SHARING["block-8"]):
        spec = replace(shadow_spec(SMOLLM2, pilot), rest="mean")
        check(spec, host_target, SPARSE_LAYER, [40], [300], spread=spread)


def test_shared_lists_of_float16(host_target: tvm.target.Target) -> None:
    spec = shadow_spec(HALF, SHARING["group-block-32"])
    for q_lengths, kv_lengths in LENGTHS:
        check(spec, host_target, MIXED_LAYER, q_lengths, kv_lengths)


@pytest.mark.parametrize("variant", VARIANTS[1:])
def test_shared_lists_on_every_vector_unit(variant: str, host_target: tvm.target.Target) -> None:
    spec = shadow_spec(SMOLLM2, SHARING["group-block-32"])
    check(spec, host_target, MIXED_LAYER, [97, 5], [403, 31], variant=variant)


@settings(deadline=None, max_examples=40)
@given(
    lengths=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 150)), min_size=1, max_size=4),
    layer=st.integers(0, NUM_LAYERS - 1),
    causal=st.booleans(),
)
def test_any_lengths(
    lengths: list[tuple[int, int]], layer: int, causal: bool, host_target: tvm.target.Target
) -> None:
    q_lengths, kv_lengths = ([pair[side] for pair in lengths] for side in (0, 1))
    check(shadow_spec(SMOLLM2), host_target, layer, q_lengths, kv_lengths, causal)


@pytest.mark.parametrize("spread", [1e-3, 0.3, 4.0])
def test_queries_off_their_calibrated_scale(spread: float, host_target: tvm.target.Target) -> None:
    # Nearly all zeros after quantization, then nearly all clamped: ties everywhere.
    check(shadow_spec(SMOLLM2), host_target, SPARSE_LAYER, [40], [300], spread=spread)


def test_a_causal_call_is_dense(host_target: tvm.target.Target) -> None:
    check(shadow_spec(SMOLLM2), host_target, SPARSE_LAYER, [33, 4], [100, 2], causal=True)


def test_without_a_past_nothing_is_attended_to(host_target: tvm.target.Target) -> None:
    spec = shadow_spec(SMOLLM2)
    q, q_indptr, batch = draw(SMOLLM2, [3], [0])
    output, lse = run(spec, host_target, SPARSE_LAYER, q, q_indptr, batch)
    np.testing.assert_array_equal(output, 0.0)
    np.testing.assert_array_equal(lse, EMPTY_LSE)


def test_ratio_one_is_full_attention(host_target: tvm.target.Target) -> None:
    spec = shadow_spec(SMOLLM2)
    q, q_indptr, batch = draw(SMOLLM2, [60], [250])
    got = run(spec, host_target, DENSE_LAYER, q, q_indptr, batch)
    want = dense_twin.paged_prefill(
        SMOLLM2,
        q,
        q_indptr,
        batch.pages,
        batch.page_indptr,
        batch.page_values,
        batch.last_page_len,
        causal=False,
    )
    np.testing.assert_allclose(got[0], want[0], **TOLERANCE)
    np.testing.assert_allclose(got[1], want[1], **TOLERANCE)


def test_equal_keys_keep_the_first_ones(host_target: tvm.target.Target) -> None:
    # Every score ties, so the selection is the lowest indices and shows in the values alone.
    spec = shadow_spec(SMOLLM2)
    num_keys = 203
    q, q_indptr, batch = draw(SMOLLM2, [9], [num_keys])
    for index in range(num_keys):
        page, slot = divmod(index, SMOLLM2.page_size)
        batch.pages[batch.page_values[page], 0, :, slot] = 0.5
        batch.pages[batch.page_values[page], 1, :, slot] = index
    keep = keep_count(num_keys, RATIO_ONE // 5, K_MIN)
    output, lse = run(spec, host_target, SPARSE_LAYER, q, q_indptr, batch)
    np.testing.assert_allclose(output, (keep - 1) / 2, rtol=1e-5)
    scores = q.astype(np.float64).sum(-1) * 0.5 * SMOLLM2.sm_scale
    np.testing.assert_allclose(lse, scores / np.log(2) + np.log2(keep), **TOLERANCE)


def test_an_unknown_layer_is_an_error(host_target: tvm.target.Target) -> None:
    spec = shadow_spec(SMOLLM2)
    q, q_indptr, batch = draw(SMOLLM2, [3], [20])
    with pytest.raises(Exception, match="the plan has no such layer"):
        run(spec, host_target, NUM_LAYERS, q, q_indptr, batch)


TARGETS = {
    "znver4": ({"mtriple": "x86_64-linux-gnu", "mcpu": "znver4"}, ["vpdpbusd", "vpcompressd"]),
    "cortex-a76": ({"mtriple": "aarch64-linux-gnu", "mcpu": "cortex-a76"}, ["sdot", "fmla"]),
}
"""Options, and the instructions its inner loops must contain."""


@pytest.mark.parametrize("name", TARGETS)
def test_compiles_for_other_targets(name: str) -> None:
    options, instructions = TARGETS[name]
    target = tvm.target.Target({"kind": "llvm", **options})
    kernel = shadow_paged_prefill(shadow_spec(SMOLLM2), cpu_features(target))
    assembly = build_kernels({"kernel": kernel}, target).mod.inspect_source("asm")
    for instruction in instructions:
        assert instruction in assembly


def test_many_layers_and_heads_compile_and_are_told_apart(host_target: tvm.target.Target) -> None:
    # As many plan constants as a large model has; the last head of each layer keeps its own ratio.
    geometry = AttentionSpec(num_q_heads=32, num_kv_heads=32, head_dim=16, sm_scale=0.25)
    sparse = HeadParameters(q_scale=0.02, k_scale=0.02, keep_ratio_q16=RATIO_ONE // 4)
    layers = tuple(
        (sparse,) * 31 + (replace(sparse, keep_ratio_q16=RATIO_ONE * layer // 32),)
        for layer in range(32)
    )
    spec = ShadowSpec(geometry, layers, bucket_sigma=0.5, k_min=1)
    for layer in (0, 13, 31):
        check(spec, host_target, layer, [4], [90])
