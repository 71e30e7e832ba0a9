"""Keys taken from the pages are what quantizing them again gives, to the bit.

What can break it: sequences that measure another scale than the kept one, in some heads or all;
last pages that are partly filled, and last blocks; pages in any order; rows that are full, or have
room for the keys' maxima; keys in lanes of every width and in words of every size.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import tvm

from tir_kernels.build import build_kernels
from tir_kernels.pilot.int8_dot import int8_dot_method
from tir_kernels.pilot.quantize import bucket_scales
from tir_kernels.pilot.shadow_rows import has_key_maxima
from tir_kernels.reference import sparse_decode as twin
from tir_kernels.reference.pilot import choose_bucket, quantize
from tir_kernels.spec import AttentionSpec, PilotSpec, ShadowSpec

from ..decode_harness import SPARSE_LAYER, decode_spec
from ..dense_harness import HALF, HALF_ODD_DIMS, SMOLLM2, SPECS, PagedBatch, paged_batch, spec_id
from ..shadow_harness import X86_VARIANTS, features_of, filled, tensor, unpack_keys
from .packed_keys import packed_keys

FULL_ROWS = AttentionSpec(num_q_heads=8, num_kv_heads=8, head_dim=48, sm_scale=0.25)
"""No room for maxima, and fewer words than AVX512 has lanes."""

FULL_ROWS_OF_HALF = replace(FULL_ROWS, num_kv_heads=4, dtype="float16")

MANY_KV_HEADS = AttentionSpec(num_q_heads=10, num_kv_heads=10, head_dim=16, sm_scale=0.25)
"""More than one row, and a head dim too small for so many maxima."""

GEOMETRIES = [*SPECS, HALF, HALF_ODD_DIMS, FULL_ROWS, FULL_ROWS_OF_HALF, MANY_KV_HEADS]

LENGTHS = [1, 15, 16, 33, 171, 700]
"""Keys: around a page, and more than a segment, which is 512 keys at most."""

SMALLER, KEPT, LARGER = range(3)
"""Buckets of three."""

PILOTS = {
    "4-bit": PilotSpec(bits=4, hadamard_rotation=True),
    "6-bit": PilotSpec(bits=6, hadamard_rotation=True),
    "8-bit": PilotSpec(hadamard_rotation=True),
}


def draw(spec: ShadowSpec, num_keys: int, buckets: Sequence[int]) -> tuple[np.ndarray, PagedBatch]:
    """Keys (n, Hkv, D) that measure the given buckets, one for each KV head, and pages that hold
    them and their shadow; the other slots are NaN."""
    geometry = spec.attention
    rng = np.random.default_rng(num_keys)
    shape = (num_keys, geometry.num_kv_heads, geometry.head_dim)
    means = 0.0 if spec.key_means is None else np.array(spec.key_means[SPARSE_LAYER], np.float32)
    noise = rng.standard_normal(shape, dtype=np.float32)
    largest = np.abs(twin.pilot_keys(spec, SPARSE_LAYER, noise + means)).max((0, 2))
    heads = spec.heads[SPARSE_LAYER][:: geometry.group_size]
    wanted = [
        spec.pilot.quant_max * bucket_scales(head.k_scale, spec.bucket_sigma)[bucket]
        for head, bucket in zip(heads, buckets, strict=True)
    ]
    gains = (np.array(wanted, np.float32) / largest)[None, :, None]
    k = (noise * gains + means).astype(geometry.dtype)
    batch = paged_batch(geometry, [num_keys], rng)
    size = geometry.page_size
    slots = (batch.page_values[:, None] * size + np.arange(size)).reshape(-1)[:num_keys]
    twin.append(spec, SPARSE_LAYER, batch.pages, k, np.zeros_like(k), slots)
    return k.astype(np.float32), batch


@cache
def module(spec: ShadowSpec, variant: str, target: tvm.target.Target) -> tvm.runtime.Executable:
    return build_kernels({"packed": packed_keys(spec, features_of(variant, target))}, target)


def run(
    spec: ShadowSpec, target: tvm.target.Target, batch: PagedBatch, num_keys: int, variant: str
) -> tuple[np.ndarray, np.ndarray]:
    """INT8 keys (Hkv, padded n, D), and the buckets of KV heads."""
    geometry = spec.attention
    dot = int8_dot_method(features_of(variant, target), spec.pilot.quant_max)
    blocks = -(-num_keys // dot.register_keys) * dot.register_blocks
    steps, elements = geometry.head_dim // dot.group, dot.lanes * dot.group
    packed = filled((geometry.num_kv_heads * blocks, steps, elements), dot.key_dtype, 77)
    buckets = filled((geometry.num_kv_heads,), "int32", -77)
    module(spec, variant, target)["packed"](
        tensor(batch.pages), tensor(batch.page_values), packed, buckets, SPARSE_LAYER, num_keys
    )
    keys = unpack_keys(packed.numpy(), variant, target, spec.pilot.quant_max)
    return keys.reshape(geometry.num_kv_heads, -1, geometry.head_dim), buckets.numpy()


def check(
    spec: ShadowSpec,
    target: tvm.target.Target,
    num_keys: int,
    buckets: Sequence[int],
    variant: str = "host",
) -> None:
    k, batch = draw(spec, num_keys, buckets)
    got, chosen = run(spec, target, batch, num_keys, variant)
    np.testing.assert_array_equal(chosen, buckets)
    seen = twin.pilot_keys(spec, SPARSE_LAYER, k)
    grid = (spec.bucket_sigma, spec.buckets_per_axis)
    for kv_head, head in enumerate(spec.heads[SPARSE_LAYER][:: spec.attention.group_size]):
        keys = seen[:, kv_head]
        bucket = choose_bucket(keys, head.k_scale, *grid, spec.pilot.quant_max)
        scale = np.float32(bucket_scales(head.k_scale, *grid)[bucket])
        want = quantize(keys, scale, spec.pilot.quant_max)
        np.testing.assert_array_equal(got[kv_head, :num_keys], want)
        np.testing.assert_array_equal(got[kv_head, num_keys:], 0)


def in_turn(geometry: AttentionSpec, first: int) -> list[int]:
    """Buckets of the KV heads: all three of them, if there are so many heads."""
    return [(first + kv_head) % 3 for kv_head in range(geometry.num_kv_heads)]


@pytest.mark.parametrize("geometry", GEOMETRIES, ids=spec_id)
def test_packed_keys_equal_the_twins(
    geometry: AttentionSpec, host_target: tvm.target.Target
) -> None:
    spec = decode_spec(geometry, PilotSpec(hadamard_rotation=True), centered=True)
    for num_keys in LENGTHS:
        check(spec, host_target, num_keys, [KEPT] * geometry.num_kv_heads)
        for first in (SMALLER, KEPT, LARGER):
            check(spec, host_target, num_keys, in_turn(geometry, first))


@pytest.mark.parametrize("variant", ["wide", *X86_VARIANTS])
@pytest.mark.parametrize("pilot", PILOTS)
def test_every_vector_unit_and_number_of_bits(
    pilot: str, variant: str, host_target: tvm.target.Target
) -> None:
    spec = decode_spec(SMOLLM2, PILOTS[pilot])
    for num_keys in LENGTHS:
        check(spec, host_target, num_keys, [KEPT] * SMOLLM2.num_kv_heads, variant)
        check(spec, host_target, num_keys, in_turn(SMOLLM2, SMALLER), variant)


def test_a_plan_of_one_scale_never_reads_a_key(host_target: tvm.target.Target) -> None:
    spec = replace(decode_spec(FULL_ROWS), buckets_per_axis=1)
    k, batch = draw(spec, 100, [0] * FULL_ROWS.num_kv_heads)
    want, _ = run(spec, host_target, batch, 100, "host")
    np.testing.assert_array_equal(
        want[:, :100], twin.key_shadow(spec, SPARSE_LAYER, k).transpose(1, 0, 2)
    )
    without_keys = replace(batch, pages=batch.pages.copy())
    without_keys.pages[:, :, : FULL_ROWS.num_kv_heads] = np.nan
    got, _ = run(spec, host_target, without_keys, 100, "host")
    np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize("geometry", [SMOLLM2, HALF], ids=spec_id)
def test_keys_are_read_only_where_their_scale_is_not_the_kept_one(
    geometry: AttentionSpec, host_target: tvm.target.Target
) -> None:
    spec = decode_spec(geometry, PilotSpec(hadamard_rotation=True), centered=True)
    assert has_key_maxima(spec.attention)
    _, batch = draw(spec, 171, [KEPT, LARGER, KEPT])
    want, _ = run(spec, host_target, batch, 171, "host")
    changed = replace(batch, pages=batch.pages.copy())
    changed.pages[:, 0, [0, 2]] = np.nan  # K of the heads whose scale is the kept one
    got, _ = run(spec, host_target, changed, 171, "host")
    np.testing.assert_array_equal(got, want)
    changed.pages[:, 0, 1] = 0.0
    got, _ = run(spec, host_target, changed, 171, "host")
    np.testing.assert_array_equal(got[[0, 2]], want[[0, 2]])
    assert (got[1, :171] != want[1, :171]).any()


def test_what_the_pages_keep_is_what_is_packed(host_target: tvm.target.Target) -> None:
    spec = decode_spec(SMOLLM2)
    _, batch = draw(spec, 171, [KEPT, LARGER, KEPT])
    want, _ = run(spec, host_target, batch, 171, "host")
    dim = SMOLLM2.head_dim
    kept_bytes = batch.pages.view(np.int8)[:, 0, SMOLLM2.num_kv_heads]  # (pages, slots, 4 D)
    kept_bytes[..., : 3 * dim] = 5
    got, _ = run(spec, host_target, batch, 171, "host")
    assert (got[[0, 2], :171] == 5).all()
    np.testing.assert_array_equal(got[1], want[1])
