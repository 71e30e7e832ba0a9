"""NPU-Full in the paged-prefill slot: the twin's integers, but for the softmax's rounding.

What can break it: the offsets that unsigned keys and signed probabilities need, head dims that
aren't whole register tiles, padding that weighs something, saturated operands, ragged batches,
rows that see nothing. Where a probability lies in the middle of two levels, a row isn't compared.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import tvm
from hypothesis import given, settings
from hypothesis import strategies as st
from tvm.script import tirx as T  # noqa: N812 - TVMScript's own spelling

from tir_kernels.baselines.static_int8_prefill import static_int8_paged_prefill
from tir_kernels.build import build_kernels
from tir_kernels.constants import EMPTY_LSE, PROBABILITY_LEVELS
from tir_kernels.features import AVX512_VNNI, cpu_features
from tir_kernels.pilot import int8_dot
from tir_kernels.reference import attention as dense_twin
from tir_kernels.reference import static_int8 as twin
from tir_kernels.simd.shuffle import pick
from tir_kernels.simd.vector import Expr
from tir_kernels.spec import AttentionSpec, SpecError, StaticInt8Spec

from ..dense_harness import (
    HALF,
    ODD_DIMS,
    SMOLLM2,
    SPECS,
    TOLERANCE,
    Kernel,
    PagedBatch,
    indptr,
    output_tolerance,
    paged_batch,
    run_paged_prefill,
    spec_id,
)
from ..shadow_harness import VARIANTS, features_of

FINE_LAYER, COARSE_LAYER, SATURATED_LAYER = range(3)

LENGTHS = [
    ([1], [1]),
    ([7], [16]),
    ([50], [171]),
    ([97], [403]),
    ([0, 5, 33, 2], [40, 0, 100, 31]),
    ([12, 0, 60], [0, 0, 333]),
]
"""Queries and keys per sequence: around a page and a tile, without a past, without queries."""


def spec_of(geometry: AttentionSpec) -> StaticInt8Spec:
    """Layers whose scales fit standard normal numbers, are coarse, and are far too small."""
    return StaticInt8Spec(
        geometry,
        q_scales=(4 / 127, 0.3, 0.004),
        k_scales=(4.5 / 127, 0.2, 0.003),
        v_scales=(5 / 127, 0.5, 0.01),
    )


@cache
def compiled(
    spec: StaticInt8Spec, variant: str, target: tvm.target.Target
) -> tvm.runtime.Executable:
    kernel = static_int8_paged_prefill(spec, features_of(variant, target))
    return build_kernels({"kernel": kernel}, target)


def draw(
    geometry: AttentionSpec, q_lengths: list[int], kv_lengths: list[int]
) -> tuple[np.ndarray, np.ndarray, PagedBatch]:
    rng = np.random.default_rng(sum(q_lengths) + 1000 * sum(kv_lengths))
    q_indptr = indptr(q_lengths)
    shape = (q_indptr[-1], geometry.num_q_heads, geometry.head_dim)
    # larger than usual, so that probabilities reach many of the levels
    q = rng.standard_normal(shape, dtype=np.float32) * np.float32(2)
    return q.astype(geometry.dtype), q_indptr, paged_batch(geometry, kv_lengths, rng)


def check(
    target: tvm.target.Target,
    geometry: AttentionSpec,
    layer: int,
    q: np.ndarray,
    q_indptr: np.ndarray,
    batch: PagedBatch,
    causal: bool = False,
    variant: str = "host",
    compared: float = 0.8,
) -> None:
    kernel = compiled(spec_of(geometry), variant, target)["kernel"]
    compare(kernel, geometry, layer, q, q_indptr, batch, causal, compared)


def compare(
    kernel: Kernel,
    geometry: AttentionSpec,
    layer: int,
    q: np.ndarray,
    q_indptr: np.ndarray,
    batch: PagedBatch,
    causal: bool = False,
    compared: float = 0.8,
) -> None:
    """`compared`: the least part of the rows that must not hang on rounding."""
    output, lse = run_paged_prefill(kernel, geometry, q, q_indptr, batch, causal, layer)
    want_output, want_lse, decided = twin.static_int8_paged_prefill(
        spec_of(geometry),
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
    assert decided.size == 0 or decided.mean() >= compared
    np.testing.assert_allclose(output[decided], want_output[decided], **output_tolerance(geometry))
    np.testing.assert_allclose(lse, want_lse, **TOLERANCE)


@pytest.mark.parametrize("geometry", [*SPECS, HALF], ids=spec_id)
def test_kernel_equals_twin(geometry: AttentionSpec, host_target: tvm.target.Target) -> None:
    for lengths in LENGTHS:
        check(host_target, geometry, FINE_LAYER, *draw(geometry, *lengths))


@pytest.mark.parametrize("variant", VARIANTS[1:])
def test_every_vector_unit(variant: str, host_target: tvm.target.Target) -> None:
    for lengths in LENGTHS:
        check(host_target, SMOLLM2, FINE_LAYER, *draw(SMOLLM2, *lengths), variant=variant)


def _plain_vnni(lanes: int) -> int8_dot.Int8DotMethod:
    """Signed queries, unsigned keys and four elements a lane as with vpdpbusd, but of operations
    that every machine has."""

    def accumulate(acc: Expr, keys: Expr, query: Expr) -> Expr:
        elements = T.reinterpret(f"int8x{4 * lanes}", query)
        for element in range(4):
            mine = range(element, 4 * lanes, 4)
            acc = acc + T.Cast(f"int32x{lanes}", pick([keys], mine)) * T.Cast(
                f"int32x{lanes}", pick([elements], mine)
            )
        return acc

    return int8_dot.Int8DotMethod(lanes, 4, "int8", int8_dot.UINT8_KEY_OFFSET, 3, 4, accumulate)


@pytest.mark.parametrize("geometry", [SMOLLM2, ODD_DIMS], ids=spec_id)
def test_unsigned_keys_and_signed_levels(
    geometry: AttentionSpec, host_target: tvm.target.Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(int8_dot._METHODS, "vnni", _plain_vnni)
    kernel = static_int8_paged_prefill(spec_of(geometry), AVX512_VNNI)
    module = build_kernels({"kernel": kernel}, host_target)
    for lengths in LENGTHS:
        compare(module["kernel"], geometry, FINE_LAYER, *draw(geometry, *lengths))


@pytest.mark.parametrize("layer", [COARSE_LAYER, SATURATED_LAYER])
def test_every_layer_has_its_scales(layer: int, host_target: tvm.target.Target) -> None:
    check(host_target, SMOLLM2, layer, *draw(SMOLLM2, [50], [171]))


def test_a_causal_mask(host_target: tvm.target.Target) -> None:
    for lengths in (([33], [33]), ([7, 20], [100, 21]), ([40], [13])):
        check(host_target, SMOLLM2, FINE_LAYER, *draw(SMOLLM2, *lengths), causal=True)


@settings(deadline=None, max_examples=25)
@given(lengths=st.lists(st.tuples(st.integers(0, 60), st.integers(0, 150)), min_size=1, max_size=4))
def test_any_lengths(lengths: list[tuple[int, int]], host_target: tvm.target.Target) -> None:
    q_lengths, kv_lengths = ([pair[side] for pair in lengths] for side in (0, 1))
    check(host_target, SMOLLM2, FINE_LAYER, *draw(SMOLLM2, q_lengths, kv_lengths), compared=0.5)


def test_it_is_near_exact_attention(host_target: tvm.target.Target) -> None:
    q, q_indptr, batch = draw(SMOLLM2, [30], [40])
    q /= 2  # within the scales
    kernel = compiled(spec_of(SMOLLM2), "host", host_target)["kernel"]
    output, _ = run_paged_prefill(kernel, SMOLLM2, q, q_indptr, batch, False, FINE_LAYER)
    exact, _ = dense_twin.paged_prefill(
        SMOLLM2,
        q,
        q_indptr,
        batch.pages,
        batch.page_indptr,
        batch.page_values,
        batch.last_page_len,
        causal=False,
    )
    assert 1e-3 < np.abs(output - exact).mean() < 0.05


def test_rounded_probabilities_need_not_add_up_to_one(host_target: tvm.target.Target) -> None:
    q, q_indptr, batch = draw(SMOLLM2, [30], [40])
    batch.pages[:, 0] = 0.5
    batch.pages[:, 1] = 1.0
    kernel = compiled(spec_of(SMOLLM2), "host", host_target)["kernel"]
    output, _ = run_paged_prefill(kernel, SMOLLM2, q, q_indptr, batch, False, FINE_LAYER)
    total = 40 * np.rint(PROBABILITY_LEVELS / 40) / PROBABILITY_LEVELS
    v_scale = spec_of(SMOLLM2).v_scales[FINE_LAYER]
    np.testing.assert_allclose(output, total * np.rint(1.0 / v_scale) * v_scale, rtol=1e-5)


def test_without_a_past_nothing_is_attended_to(host_target: tvm.target.Target) -> None:
    q, q_indptr, batch = draw(SMOLLM2, [3], [0])
    kernel = compiled(spec_of(SMOLLM2), "host", host_target)["kernel"]
    output, lse = run_paged_prefill(kernel, SMOLLM2, q, q_indptr, batch, False, FINE_LAYER)
    np.testing.assert_array_equal(output, 0.0)
    np.testing.assert_array_equal(lse, EMPTY_LSE)


def test_an_unknown_layer_is_an_error(host_target: tvm.target.Target) -> None:
    q, q_indptr, batch = draw(SMOLLM2, [3], [20])
    kernel = compiled(spec_of(SMOLLM2), "host", host_target)["kernel"]
    with pytest.raises(Exception, match="no scales for such a layer"):
        run_paged_prefill(kernel, SMOLLM2, q, q_indptr, batch, False, 3)


def test_scales_are_checked() -> None:
    with pytest.raises(SpecError, match=r"as many scales of Q, K and V.* got \[2, 1, 2\]"):
        StaticInt8Spec(SMOLLM2, (0.1, 0.1), (0.1,), (0.1, 0.1))
    with pytest.raises(SpecError, match="positive scales"):
        StaticInt8Spec(SMOLLM2, (0.1,), (0.0,), (0.1,))


TARGETS = {
    "znver4": ({"mtriple": "x86_64-linux-gnu", "mcpu": "znver4"}, "vpdpbusd"),
    "cortex-a76": ({"mtriple": "aarch64-linux-gnu", "mcpu": "cortex-a76"}, "sdot"),
}


@pytest.mark.parametrize("name", TARGETS)
def test_compiles_for_other_targets(name: str) -> None:
    options, instruction = TARGETS[name]
    target = tvm.target.Target({"kind": "llvm", **options})
    kernel = static_int8_paged_prefill(spec_of(SMOLLM2), cpu_features(target))
    assembly = build_kernels({"kernel": kernel}, target).mod.inspect_source("asm")
    assert assembly.count(instruction) > 0
