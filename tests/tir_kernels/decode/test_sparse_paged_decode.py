"""shadowAttn in the decode slot: the twin's lists to the bit, exact attention over them.

What can break it: lengths around a page, a split and a register tile, ragged batches with empty
sequences, ratios from none to all mixed over the heads of a group, queries far off their
calibration (ties everywhere), NaN in every slot that holds no key.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np
import pytest
import tvm
from hypothesis import given, settings
from hypothesis import strategies as st

from tir_kernels.build import build_kernels
from tir_kernels.constants import EMPTY_LSE, RATIO_ONE
from tir_kernels.decode.sparse_paged_decode import sparse_paged_decode
from tir_kernels.features import cpu_features
from tir_kernels.reference import attention as dense_twin
from tir_kernels.reference import sparse_decode as twin
from tir_kernels.spec import AttentionSpec, PilotSpec, ShadowSpec, keep_count

from ..decode_harness import (
    DENSE_LAYER,
    K_MIN,
    MIXED_LAYER,
    NUM_LAYERS,
    SPARSE_LAYER,
    decode_spec,
    run_lists,
    run_sparse_decode,
    shadowed_batch,
)
from ..dense_harness import (
    HALF,
    HALF_ODD_DIMS,
    ODD_DIMS,
    SMOLLM2,
    SPECS,
    TOLERANCE,
    PagedBatch,
    output_tolerance,
    spec_id,
)
from ..shadow_harness import VARIANTS

LENGTHS = [[0], [1], [2], [7], [16], [17], [31], [260], [0, 3, 300, 0, 16, 0], [1500]]
"""Keys per sequence: none, one, at most k_min, around a page and a split, more kept than
a split."""

LIST_LENGTHS = [1, 2, K_MIN, K_MIN + 1, K_MIN + 2, 16, 33, 400]


def draw(
    spec: ShadowSpec, layer: int, kv_lengths: list[int], spread: float = 1.0
) -> tuple[np.ndarray, PagedBatch]:
    rng = np.random.default_rng(sum(kv_lengths))
    shape = (len(kv_lengths), spec.attention.num_q_heads, spec.attention.head_dim)
    q = rng.standard_normal(shape, dtype=np.float32) * np.float32(spread)
    return q.astype(spec.attention.dtype), shadowed_batch(spec, layer, kv_lengths, rng)


def check(
    spec: ShadowSpec,
    target: tvm.target.Target,
    layer: int,
    kv_lengths: list[int],
    variant: str = "host",
    spread: float = 1.0,
) -> None:
    q, batch = draw(spec, layer, kv_lengths, spread)
    got = run_sparse_decode(spec, target, layer, q, batch, variant)
    want = twin.sparse_paged_decode(
        spec, layer, q, batch.pages, batch.page_indptr, batch.page_values, batch.last_page_len
    )
    np.testing.assert_allclose(got[0], want[0], **output_tolerance(spec.attention))
    np.testing.assert_allclose(got[1], want[1], **TOLERANCE)


def check_lists(
    spec: ShadowSpec,
    target: tvm.target.Target,
    layer: int,
    num_keys: int,
    variant: str = "host",
    spread: float = 1.0,
) -> None:
    geometry = spec.attention
    rng = np.random.default_rng(num_keys)
    q = rng.standard_normal((geometry.num_q_heads, geometry.head_dim), dtype=np.float32) * spread
    k = rng.standard_normal((num_keys, geometry.num_kv_heads, geometry.head_dim), dtype=np.float32)
    q, k = (x.astype(geometry.dtype) for x in (q, k))
    got = run_lists(spec, target, layer, q, k, variant)
    want = twin.select(spec, layer, q, k)
    for mine, theirs in zip(got, want, strict=True):
        np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("geometry", [*SPECS, HALF], ids=spec_id)
def test_lists_equal_the_twins(geometry: AttentionSpec, host_target: tvm.target.Target) -> None:
    spec = decode_spec(geometry)
    for num_keys in LIST_LENGTHS:
        for layer in (SPARSE_LAYER, MIXED_LAYER):
            check_lists(spec, host_target, layer, num_keys)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize(("bits", "geometry"), [(4, ODD_DIMS), (8, ODD_DIMS), (8, HALF_ODD_DIMS)])
def test_lists_of_changed_rows(
    bits: Literal[4, 8], geometry: AttentionSpec, variant: str, host_target: tvm.target.Target
) -> None:
    pilot = PilotSpec(bits=bits, hadamard_rotation=True)
    spec = decode_spec(geometry, pilot, centered=True)
    for num_keys in LIST_LENGTHS:
        check_lists(spec, host_target, MIXED_LAYER, num_keys, variant)


@pytest.mark.parametrize("spread", [1e-3, 0.3, 10.0])
def test_ties_go_to_the_lower_index(spread: float, host_target: tvm.target.Target) -> None:
    # Nearly all zeros after quantization, then nearly all clamped.
    check_lists(decode_spec(SMOLLM2), host_target, SPARSE_LAYER, 333, spread=spread)


@pytest.mark.parametrize("geometry", [*SPECS, HALF], ids=spec_id)
def test_kernel_equals_twin(geometry: AttentionSpec, host_target: tvm.target.Target) -> None:
    spec = decode_spec(geometry)
    for kv_lengths in LENGTHS:
        for layer in range(NUM_LAYERS):
            check(spec, host_target, layer, kv_lengths)


@pytest.mark.parametrize("variant", VARIANTS[1:])
def test_every_vector_unit(variant: str, host_target: tvm.target.Target) -> None:
    spec = decode_spec(SMOLLM2)
    for kv_lengths in LENGTHS:
        check(spec, host_target, MIXED_LAYER, kv_lengths, variant)


def test_a_plan_that_requantizes_and_shares(host_target: tvm.target.Target) -> None:
    """Both are about prefill: decode ranks exact sums, a list for each head."""
    plain = decode_spec(SMOLLM2)
    pooled = replace(
        plain,
        pilot=PilotSpec(score_bits=8, query_block=32),
        heads=tuple(
            tuple(replace(head, requant=((1e-3,) * 3,) * 3) for head in layer)
            for layer in plain.heads
        ),
    )
    q, batch = draw(plain, SPARSE_LAYER, [200, 31])
    for mine, theirs in zip(
        run_sparse_decode(pooled, host_target, SPARSE_LAYER, q, batch),
        run_sparse_decode(plain, host_target, SPARSE_LAYER, q, batch),
        strict=True,
    ):
        np.testing.assert_array_equal(mine, theirs)


@settings(deadline=None, max_examples=40)
@given(
    kv_lengths=st.lists(st.integers(0, 400), min_size=1, max_size=5),
    layer=st.integers(0, NUM_LAYERS - 1),
)
def test_any_lengths(kv_lengths: list[int], layer: int, host_target: tvm.target.Target) -> None:
    check(decode_spec(SMOLLM2), host_target, layer, kv_lengths)


def test_the_shadow_in_the_pages_is_what_is_scored(host_target: tvm.target.Target) -> None:
    """Other bytes, other lists: the keys themselves are only read for those selected."""
    spec = decode_spec(SMOLLM2)
    q, batch = draw(spec, SPARSE_LAYER, [300])
    before = run_sparse_decode(spec, host_target, SPARSE_LAYER, q, batch)
    batch.pages[:, :, SMOLLM2.num_kv_heads :] = 0.0
    after = run_sparse_decode(spec, host_target, SPARSE_LAYER, q, batch)
    assert np.abs(before[0] - after[0]).max() > 1e-2
    # With all scores alike, the first keys are kept, and the newest.
    keep = keep_count(299, RATIO_ONE // 5, K_MIN)
    k, v = dense_twin.sequence_pages(
        spec.attention, batch.pages, batch.page_values, int(batch.last_page_len[0])
    )
    kept = [*range(keep), 299]
    want, _ = dense_twin.attend(
        q[0, :1], k[kept, 0], v[kept, 0], np.array([len(kept)]), SMOLLM2.sm_scale
    )
    np.testing.assert_allclose(after[0][0, 0], want[0], **TOLERANCE)


def test_the_newest_key_is_always_attended_to(host_target: tvm.target.Target) -> None:
    spec = decode_spec(SMOLLM2)
    rng = np.random.default_rng(1)
    q = rng.standard_normal((SMOLLM2.num_q_heads, SMOLLM2.head_dim), dtype=np.float32)
    k = rng.standard_normal((100, SMOLLM2.num_kv_heads, SMOLLM2.head_dim), dtype=np.float32)
    for kv_head in range(SMOLLM2.num_kv_heads):
        k[-1, kv_head] = -q[kv_head * SMOLLM2.group_size]  # the worst score of that head
    for chosen in run_lists(spec, host_target, SPARSE_LAYER, q, k):
        assert chosen[-1] == 99
        assert len(chosen) == keep_count(99, RATIO_ONE // 5, K_MIN) + 1


def test_ratio_one_is_full_attention(host_target: tvm.target.Target) -> None:
    spec = decode_spec(SMOLLM2)
    q, batch = draw(spec, DENSE_LAYER, [250, 3])
    got = run_sparse_decode(spec, host_target, DENSE_LAYER, q, batch)
    want = dense_twin.paged_decode(
        spec.attention, q, batch.pages, batch.page_indptr, batch.page_values, batch.last_page_len
    )
    np.testing.assert_allclose(got[0], want[0], **TOLERANCE)
    np.testing.assert_allclose(got[1], want[1], **TOLERANCE)


def test_a_reserved_page_without_keys(host_target: tvm.target.Target) -> None:
    """The runtime may hand out a page before it holds anything."""
    spec = decode_spec(SMOLLM2)
    q, batch = draw(spec, SPARSE_LAYER, [5])
    empty = replace(batch, last_page_len=np.zeros(1, np.int32))
    output, lse = run_sparse_decode(spec, host_target, SPARSE_LAYER, q, empty)
    np.testing.assert_array_equal(output, 0.0)
    np.testing.assert_array_equal(lse, EMPTY_LSE)


def test_an_unknown_layer_is_an_error(host_target: tvm.target.Target) -> None:
    spec = decode_spec(SMOLLM2)
    q, batch = draw(spec, SPARSE_LAYER, [20])
    with pytest.raises(Exception, match="the plan has no such layer"):
        run_sparse_decode(spec, host_target, NUM_LAYERS, q, batch)


TARGETS = {
    "znver4": ({"mtriple": "x86_64-linux-gnu", "mcpu": "znver4"}, ["vpmaddwd", "vpcompressd"]),
    "cortex-a76": ({"mtriple": "aarch64-linux-gnu", "mcpu": "cortex-a76"}, ["sdot", "fmla"]),
}
"""Options, and the instructions its inner loops must contain."""


@pytest.mark.parametrize("name", TARGETS)
def test_compiles_for_other_targets(name: str) -> None:
    options, instructions = TARGETS[name]
    target = tvm.target.Target({"kind": "llvm", **options})
    kernel = sparse_paged_decode(decode_spec(SMOLLM2), cpu_features(target))
    assembly = build_kernels({"kernel": kernel}, target).mod.inspect_source("asm")
    for instruction in instructions:
        assert instruction in assembly
