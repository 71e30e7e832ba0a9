"""The shadow of K as it is written: the twin's bytes, and nothing else touched."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import tvm

from tir_kernels.pilot.shadow_rows import shadow_rows
from tir_kernels.reference import sparse_decode as twin
from tir_kernels.reference.attention import sequence_pages
from tir_kernels.spec import AttentionSpec, PilotSpec, ShadowSpec

from ..decode_harness import NUM_LAYERS, decode_spec, run_append
from ..dense_harness import HALF, HALF_ODD_DIMS, SMOLLM2, SPECS, spec_id
from ..shadow_harness import VARIANTS

MANY_KV_HEADS = AttentionSpec(num_q_heads=10, num_kv_heads=10, head_dim=16, sm_scale=0.25)
"""More KV heads than one extra head row holds, and the smallest head dim."""

MANY_IN_HALF = replace(MANY_KV_HEADS, dtype="float16")

PILOTS = {
    "plain": PilotSpec(),
    "rotated": PilotSpec(hadamard_rotation=True),
    "4-bit": PilotSpec(bits=4),
}


def check(
    spec: ShadowSpec, target: tvm.target.Target, num_tokens: int, layer: int, variant: str = "host"
) -> None:
    geometry = spec.attention
    rng = np.random.default_rng(num_tokens)
    num_pages = -(-num_tokens // geometry.page_size) + 2
    shape = (num_pages, 2, geometry.stored_heads, geometry.page_size, geometry.head_dim)
    pages = rng.standard_normal(shape, dtype=np.float32).astype(geometry.dtype)
    positions = rng.permutation(num_pages * geometry.page_size)[:num_tokens].astype(np.int32)
    positions[1::4] = -1
    kv_shape = (2, num_tokens, geometry.num_kv_heads, geometry.head_dim)
    k, v = rng.standard_normal(kv_shape, dtype=np.float32).astype(geometry.dtype)
    got = run_append(spec, target, layer, pages, k, v, positions, variant)
    twin.append(spec, layer, pages, k, v, positions)
    np.testing.assert_array_equal(got.view(np.int8), pages.view(np.int8))


@pytest.mark.parametrize("geometry", [*SPECS, MANY_KV_HEADS, HALF, MANY_IN_HALF], ids=spec_id)
def test_kernel_equals_twin(geometry: AttentionSpec, host_target: tvm.target.Target) -> None:
    spec = decode_spec(geometry)
    for num_tokens in (0, 1, 37):
        for layer in range(NUM_LAYERS):
            check(spec, host_target, num_tokens, layer)


@pytest.mark.parametrize("pilot", PILOTS)
@pytest.mark.parametrize("centered", [False, True])
def test_keys_as_the_pilot_sees_them(
    pilot: str, centered: bool, host_target: tvm.target.Target
) -> None:
    check(decode_spec(SMOLLM2, PILOTS[pilot], centered=centered), host_target, 21, 1)


@pytest.mark.parametrize("variant", VARIANTS[1:])
def test_every_vector_unit(variant: str, host_target: tvm.target.Target) -> None:
    for geometry in (SPECS[1], HALF_ODD_DIMS):
        spec = decode_spec(geometry, PilotSpec(hadamard_rotation=True), centered=True)
        check(spec, host_target, 21, 1, variant)


def test_keys_beyond_the_scale_saturate(host_target: tvm.target.Target) -> None:
    spec = decode_spec(SMOLLM2)
    k = np.full((1, SMOLLM2.num_kv_heads, SMOLLM2.head_dim), 1e9, np.float32)
    k[..., 1::2] *= -1
    shadow = twin.key_shadow(spec, 0, k)
    np.testing.assert_array_equal(shadow[..., 0::2], 127)
    np.testing.assert_array_equal(shadow[..., 1::2], -127)
    shape = (1, 2, spec.attention.stored_heads, SMOLLM2.page_size, SMOLLM2.head_dim)
    pages = np.zeros(shape, np.float32)
    got = run_append(spec, host_target, 0, pages, k, k, np.zeros(1, np.int32))
    twin.append(spec, 0, pages, k, k, np.zeros(1, np.int32))
    np.testing.assert_array_equal(got.view(np.int8), pages.view(np.int8))


def test_keys_and_values_are_where_every_kernel_reads_them(host_target: tvm.target.Target) -> None:
    spec = decode_spec(SMOLLM2)
    rng = np.random.default_rng(5)
    k, v = rng.standard_normal((2, 20, SMOLLM2.num_kv_heads, SMOLLM2.head_dim), dtype=np.float32)
    shape = (2, 2, spec.attention.stored_heads, SMOLLM2.page_size, SMOLLM2.head_dim)
    pages = np.full(shape, np.nan, np.float32)
    got = run_append(spec, host_target, 0, pages, k, v, np.arange(20, dtype=np.int32))
    keys, values = sequence_pages(spec.attention, got, np.arange(2), 4)
    np.testing.assert_array_equal(keys, k)
    np.testing.assert_array_equal(values, v)


@pytest.mark.parametrize(("kv_heads", "rows"), [(1, 1), (3, 1), (8, 1), (9, 2), (16, 2), (17, 3)])
def test_eight_kv_heads_take_a_row(kv_heads: int, rows: int) -> None:
    spec = AttentionSpec(kv_heads, kv_heads, head_dim=16, sm_scale=0.25)
    assert shadow_rows(spec) == rows


@pytest.mark.parametrize(("kv_heads", "rows"), [(1, 1), (4, 1), (5, 2), (8, 2), (9, 3)])
def test_four_kv_heads_take_a_row_of_float16(kv_heads: int, rows: int) -> None:
    spec = AttentionSpec(kv_heads, kv_heads, head_dim=16, sm_scale=0.25, dtype="float16")
    assert shadow_rows(spec) == rows


def test_an_unknown_layer_is_an_error(host_target: tvm.target.Target) -> None:
    spec = decode_spec(SMOLLM2)
    k = np.zeros((1, SMOLLM2.num_kv_heads, SMOLLM2.head_dim), np.float32)
    shape = (1, 2, spec.attention.stored_heads, SMOLLM2.page_size, SMOLLM2.head_dim)
    with pytest.raises(Exception, match="the plan has no such layer"):
        run_append(
            spec, host_target, NUM_LAYERS, np.zeros(shape, np.float32), k, k, np.zeros(1, np.int32)
        )
