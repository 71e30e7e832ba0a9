"""The lists of every kind of plan: the kernel's integers are the twin's, no key more or less.

What can break it: bucket grids of one to five scales, four bits, centring and rotation in head dims
that aren't powers of two, requantization that saturates, rows sharing lists over blocks that don't
divide the chunk, ties, lengths that are multiples of nothing.
"""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import tvm

from tir_kernels.build import build_kernels
from tir_kernels.constants import RATIO_ONE
from tir_kernels.features import cpu_features
from tir_kernels.reference import shadow_prefill as twin
from tir_kernels.shadow.lists import shadow_lists
from tir_kernels.spec import AttentionSpec, HeadParameters, PilotSpec, ShadowSpec, keep_count

from ..shadow_harness import X86_VARIANTS, features_of, filled, tensor, with_strides

K_MIN = 3
SMALL = AttentionSpec(num_q_heads=6, num_kv_heads=2, head_dim=64, sm_scale=0.125)

PILOTS = {
    "plain": PilotSpec(),
    "int4": PilotSpec(bits=4),
    "int6": PilotSpec(bits=6),
    "int7": PilotSpec(bits=7),
    "rotated": PilotSpec(hadamard_rotation=True),
    "int8-scores": PilotSpec(score_bits=8),
    "9-bit-scores": PilotSpec(score_bits=9),
    "group": PilotSpec(score_bits=8, share_group=True),
    "block-8": PilotSpec(score_bits=8, query_block=8),
    "block-8-9-bit-scores": PilotSpec(score_bits=9, query_block=8),
    "group-block-16": PilotSpec(score_bits=9, share_group=True, query_block=16),
    "everything": PilotSpec(
        bits=4, hadamard_rotation=True, score_bits=8, share_group=True, query_block=128
    ),
}


SHARED_BLOCKS = {
    "block-8": PilotSpec(score_bits=8, query_block=8),
    "block-32": PilotSpec(score_bits=9, query_block=32, hadamard_rotation=True),
    "group-block-16": PILOTS["group-block-16"],
}


def plan_of(
    geometry: AttentionSpec, pilot: PilotSpec, *, per_axis: int = 3, centered: bool = False
) -> ShadowSpec:
    """Two layers whose heads differ in scale and ratio, as far as they may."""
    rng = np.random.default_rng(geometry.head_dim)
    spread = (geometry.head_dim**0.5 if pilot.hadamard_rotation else 1) * 4 / pilot.quant_max
    layers = []
    for _ in range(2):
        heads = []
        for head in range(geometry.num_q_heads):
            kv_head = head // geometry.group_size
            unit = kv_head if pilot.share_group else head
            scores = pilot.quant_max**2 * geometry.head_dim**0.5 / 4
            requant = np.minimum(
                pilot.score_max / scores * rng.uniform(0.3, 2, (per_axis, per_axis)), 1.0
            )
            heads.append(
                HeadParameters(
                    q_scale=spread * (0.6 + 0.1 * head),
                    k_scale=spread * (0.7 + 0.2 * kv_head),
                    keep_ratio_q16=[RATIO_ONE // 5, RATIO_ONE // 50, RATIO_ONE // 2][unit % 3],
                    requant=tuple(map(tuple, requant)) if pilot.requantize else None,
                )
            )
        layers.append(tuple(heads))
    means = rng.standard_normal((2, geometry.num_kv_heads, geometry.head_dim)).astype(np.float32)
    return ShadowSpec(
        geometry,
        tuple(layers),
        bucket_sigma=0.6,
        k_min=K_MIN,
        buckets_per_axis=per_axis,
        pilot=pilot,
        key_means=tuple(tuple(tuple(map(float, m)) for m in layer) for layer in means)
        if centered
        else None,
    )


def pages_of(geometry: AttentionSpec, k: np.ndarray) -> np.ndarray:
    """Keys (n, Hkv, D) in pages, in order; NaN where there is nothing to read."""
    size = geometry.page_size
    num_pages = -(-len(k) // size)
    pages = np.full(
        (num_pages, 2, geometry.num_kv_heads, size, geometry.head_dim), np.nan, geometry.dtype
    )
    for i, key in enumerate(k):
        pages[i // size, 0, :, i % size] = key
    return pages


@cache
def compiled(spec: ShadowSpec, variant: str, target: tvm.target.Target) -> tvm.runtime.Executable:
    return build_kernels({"lists": shadow_lists(spec, features_of(variant, target))}, target)


def check(
    spec: ShadowSpec,
    target: tvm.target.Target,
    q: np.ndarray,
    k: np.ndarray,
    layer: int = 1,
    variant: str = "host",
) -> None:
    num_queries, num_keys = len(q), len(k)
    lists = filled((num_queries, spec.attention.num_q_heads, num_keys), "int32", -77)
    counts = filled((num_queries, spec.attention.num_q_heads), "int32", -77)
    compiled(spec, variant, target)["lists"](
        tensor(q), tensor(pages_of(spec.attention, k)), lists, counts, layer, num_keys
    )
    expected = twin.select(spec, layer, q, k)
    for head in range(spec.attention.num_q_heads):
        keep = keep_count(num_keys, spec.heads[layer][head].keep_ratio_q16, K_MIN)
        for i in range(num_queries):
            got = lists.numpy()[i, head, : counts.numpy()[i, head]]
            assert len(got) == keep
            np.testing.assert_array_equal(got, expected[head][i], f"query {i} head {head}")


def draw(
    geometry: AttentionSpec, num_queries: int, num_keys: int, spread: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1000 * num_queries + num_keys)
    q = rng.standard_normal((num_queries, geometry.num_q_heads, geometry.head_dim), np.float32)
    k = rng.standard_normal((num_keys, geometry.num_kv_heads, geometry.head_dim), np.float32)
    q, k = (x * np.float32(spread) for x in (q, k))
    return q.astype(geometry.dtype), k.astype(geometry.dtype)


@pytest.mark.parametrize("lengths", [(1, 1), (7, 20), (50, 171), (97, 403)])
@pytest.mark.parametrize("pilot", PILOTS)
def test_every_pilot(pilot: str, lengths: tuple[int, int], host_target: tvm.target.Target) -> None:
    check(plan_of(SMALL, PILOTS[pilot]), host_target, *draw(SMALL, *lengths))


@pytest.mark.parametrize("lengths", [(1, 1), (7, 20), (50, 171), (97, 403)])
@pytest.mark.parametrize("pilot", SHARED_BLOCKS)
def test_every_so_many_th_query_votes(
    pilot: str, lengths: tuple[int, int], host_target: tvm.target.Target
) -> None:
    spec = with_strides(plan_of(SMALL, SHARED_BLOCKS[pilot]))
    check(spec, host_target, *draw(SMALL, *lengths))


@pytest.mark.parametrize("variant", X86_VARIANTS)
def test_a_sample_votes_on_every_vector_unit(variant: str, host_target: tvm.target.Target) -> None:
    spec = with_strides(plan_of(SMALL, SHARED_BLOCKS["block-32"]))
    check(spec, host_target, *draw(SMALL, 50, 171), variant=variant)


@pytest.mark.parametrize("variant", ["generic", "wide"])
@pytest.mark.parametrize("pilot", ["rotated", "everything"])
def test_every_vector_unit(pilot: str, variant: str, host_target: tvm.target.Target) -> None:
    spec = plan_of(SMALL, PILOTS[pilot], centered=True)
    check(spec, host_target, *draw(SMALL, 37, 211), variant=variant)


@pytest.mark.parametrize("variant", X86_VARIANTS)
def test_bytes_on_every_vector_unit(variant: str, host_target: tvm.target.Target) -> None:
    spec = plan_of(SMALL, PILOTS["int8-scores"])
    for num_keys in (1, 31, 32, 65, 211):
        check(spec, host_target, *draw(SMALL, 19, num_keys), variant=variant)


@pytest.mark.parametrize("factor", [1.0, 1e-2, 1e-6])
@pytest.mark.parametrize("bits", [8, 6])
def test_bytes_saturate_and_vanish(
    bits: int, factor: float, host_target: tvm.target.Target
) -> None:
    # most scores beyond +-127, some, and none but 0
    spec = plan_of(SMALL, PilotSpec(bits=bits, score_bits=8))
    table = ((factor,) * 3,) * 3
    heads = tuple(tuple(replace(head, requant=table) for head in row) for row in spec.heads)
    check(replace(spec, heads=heads), host_target, *draw(SMALL, 13, 170))


@pytest.mark.parametrize("variant", ["host", "wide"])
@pytest.mark.parametrize("pilot", ["plain", "everything"])
def test_float16_is_quantized_as_the_float32_it_stands_for(
    pilot: str, variant: str, host_target: tvm.target.Target
) -> None:
    geometry = replace(SMALL, dtype="float16")
    spec = plan_of(geometry, PILOTS[pilot], centered=pilot == "everything")
    check(spec, host_target, *draw(geometry, 37, 211), variant=variant)


@pytest.mark.parametrize("per_axis", [1, 5])
@pytest.mark.parametrize("spread", [0.1, 1.0, 9.0])
def test_bucket_grids_far_from_their_centre(
    spread: float, per_axis: int, host_target: tvm.target.Target
) -> None:
    spec = plan_of(SMALL, PILOTS["group"], per_axis=per_axis)
    check(spec, host_target, *draw(SMALL, 20, 133, spread))


@pytest.mark.parametrize(("head_dim", "group"), [(80, 1), (128, 8), (256, 7), (48, 2)])
def test_geometries(head_dim: int, group: int, host_target: tvm.target.Target) -> None:
    geometry = AttentionSpec(2 * group, 2, head_dim, head_dim**-0.5)
    pilot = replace(PILOTS["group-block-16"], hadamard_rotation=True)
    check(plan_of(geometry, pilot, centered=True), host_target, *draw(geometry, 33, 150))
    check(plan_of(geometry, PILOTS["int8-scores"]), host_target, *draw(geometry, 7, 150))


@pytest.mark.parametrize("pilot", ["plain", "int8-scores", "group-block-16"])
def test_ties_go_to_the_lower_index(pilot: str, host_target: tvm.target.Target) -> None:
    q, k = draw(SMALL, 40, 300)
    k[:] = k[0]
    check(plan_of(SMALL, PILOTS[pilot]), host_target, q, k)


@pytest.mark.parametrize("pilot", ["plain", "int8-scores", "group-block-16"])
def test_rows_of_zeros(pilot: str, host_target: tvm.target.Target) -> None:
    q, k = draw(SMALL, 9, 100)
    check(plan_of(SMALL, PILOTS[pilot]), host_target, 0 * q, 0 * k)


@pytest.mark.parametrize("num_keys", [1, 15, 16, 17, 31, 32, 33, 63, 65, 130])
def test_padding_has_no_vote(num_keys: int, host_target: tvm.target.Target) -> None:
    # a flat exponential, so that whatever lies behind the last key would weigh as much as a key
    spec = plan_of(SMALL, PILOTS["group-block-16"])
    flat = tuple(
        tuple(replace(head, requant=((1e-6,) * 3,) * 3) for head in layer) for layer in spec.heads
    )
    check(replace(spec, heads=flat), host_target, *draw(SMALL, 19, num_keys))


POOLED_TARGETS = {
    "avx2": ({"mtriple": "x86_64-linux-gnu", "mcpu": "haswell"}, ["vpmulhrsw", "vpshufb"]),
    "avx512": ({"mtriple": "x86_64-linux-gnu", "mcpu": "znver4"}, ["vpmulhrsw", "vpshufb"]),
    "neon": ({"mtriple": "aarch64-linux-gnu", "mcpu": "cortex-a76"}, ["sdot"]),
}
"""Options, and the instructions that votes or the pilot must be made of."""


@pytest.mark.parametrize("name", POOLED_TARGETS)
def test_pooling_compiles_for_other_targets(name: str) -> None:
    options, instructions = POOLED_TARGETS[name]
    target = tvm.target.Target({"kind": "llvm", **options})
    kernel = shadow_lists(plan_of(SMALL, PILOTS["group-block-16"]), cpu_features(target))
    assembly = build_kernels({"lists": kernel}, target).mod.inspect_source("asm")
    for instruction in instructions:
        assert instruction in assembly


BYTE_TARGETS = {
    "avx2": (
        {"mtriple": "x86_64-linux-gnu", "mcpu": "haswell"},
        ["vpacksswb", "vpcmpgtb", "vpmovmskb", "popcnt"],
    ),
    "avx512": (
        {"mtriple": "x86_64-linux-gnu", "mcpu": "znver4"},
        ["vpacksswb", "vpcmpltb", "popcntq", "vpcompressd"],
    ),
    "neon": (
        {"mtriple": "aarch64-linux-gnu", "mcpu": "cortex-a76"},
        [r"cmgt\tv\d+.16b", r"sub\tv\d+.16b", r"cmeq\tv\d+.16b"],
    ),
}
"""Options, and the instructions on bytes that ranking must be made of."""


@pytest.mark.parametrize("name", BYTE_TARGETS)
def test_bytes_are_ranked_by_instructions_on_bytes(name: str) -> None:
    options, instructions = BYTE_TARGETS[name]
    target = tvm.target.Target({"kind": "llvm", **options})
    kernel = shadow_lists(plan_of(SMALL, PILOTS["int8-scores"]), cpu_features(target))
    assembly = build_kernels({"lists": kernel}, target).mod.inspect_source("asm")
    for instruction in instructions:
        assert re.search(instruction, assembly), instruction
    # compressing to memory is microcoded on Zen 4
    assert not re.search(r"vpcompress\w\s+%zmm\d+, [^%]*\(", assembly)
