"""The pilot: the same integers as NumPy, on every vector unit, at every extreme."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tvm
from tvm.script import tirx as T  # noqa: N812 - TVMScript's own spelling

from tir_kernels.build import build_kernels
from tir_kernels.constants import INT8_QMAX
from tir_kernels.features import (
    AVX2,
    AVX512,
    AVX512_VNNI,
    NEON_DOTPROD,
    NEON_I8MM,
    CpuFeatures,
    cpu_features,
)
from tir_kernels.pilot import key_block
from tir_kernels.pilot import scores as scores_file
from tir_kernels.pilot.int8_dot import Int8DotMethod, int8_dot_method
from tir_kernels.pilot.quantize import bucket_scales
from tir_kernels.pilot.scores import pilot_scores
from tir_kernels.reference import pilot as twin
from tir_kernels.simd.shuffle import pick
from tir_kernels.spec import AttentionSpec

from ..shadow_harness import VARIANTS, filled, run_pilot_scores, run_quantize_keys, tensor

SIGMA = 0.5
GEOMETRIES = [
    AttentionSpec(num_q_heads=3, num_kv_heads=1, head_dim=dim, sm_scale=0.1)
    for dim in (16, 64, 80, 128, 256)
]


EVERYWHERE = pytest.mark.parametrize(
    ("spec", "variant"),
    [(spec, "host") for spec in GEOMETRIES]
    + [(GEOMETRIES[2], variant) for variant in VARIANTS[1:]]
    + [(replace(GEOMETRIES[2], dtype="float16"), "host")],
    ids=lambda case: case if isinstance(case, str) else f"d{case.head_dim}-{case.dtype}",
)
"""Every head dim on the host's vector unit, and an odd one on the others."""


def check(
    spec: AttentionSpec,
    q: np.ndarray,
    k: np.ndarray,
    centers: tuple[float, float],
    variant: str,
    target: tvm.target.Target,
    quant_max: int = INT8_QMAX,
) -> np.ndarray:
    head = spec.num_q_heads - 1
    q, k = (x.astype(spec.dtype) for x in (q, k))
    q_scales, k_scales = (bucket_scales(center, SIGMA) for center in centers)
    table = np.arange(len(k))
    packed, k_scale = run_quantize_keys(spec, variant, target, k, table, 0, k_scales, quant_max)
    scores, q_scale = run_pilot_scores(spec, variant, target, q, head, q_scales, packed, quant_max)
    assert q_scale == twin.choose_scale(q[:, head], centers[0], SIGMA, quant_max=quant_max)
    expected = twin.pilot_scores(
        twin.quantize(q[:, head], q_scale, quant_max), twin.quantize(k, k_scale, quant_max)
    )
    np.testing.assert_array_equal(scores[:, : len(k)], expected)
    assert not scores[:, len(k) :].any(), "padding keys score 0"
    return expected


@EVERYWHERE
def test_scores_equal_the_twin(
    spec: AttentionSpec, variant: str, host_target: tvm.target.Target
) -> None:
    rng = np.random.default_rng(spec.head_dim)
    for num_queries, num_keys in [(1, 1), (5, 16), (13, 71), (6, 33)]:
        q = rng.standard_normal((num_queries, spec.num_q_heads, spec.head_dim), dtype=np.float32)
        k = rng.standard_normal((num_keys, spec.head_dim), dtype=np.float32)
        check(spec, q, k, (0.02, 0.025), variant, host_target)


@EVERYWHERE
def test_the_largest_products_do_not_overflow(
    spec: AttentionSpec, variant: str, host_target: tvm.target.Target
) -> None:
    rng = np.random.default_rng(1)
    # far beyond the scales, and just within float16
    q = rng.choice([-6e4, 6e4], (7, spec.num_q_heads, spec.head_dim)).astype(np.float32)
    k = rng.choice([-6e4, 6e4], (20, spec.head_dim)).astype(np.float32)
    q[0], k[0] = 6e4, 6e4
    k[1] = -6e4
    expected = check(spec, q, k, (0.02, 0.02), variant, host_target)
    assert expected[0, 0] == 127 * 127 * spec.head_dim
    assert expected[0, 1] == -127 * 127 * spec.head_dim


@pytest.mark.parametrize("quant_max", [63, 31, 7], ids=lambda most: f"up to {most}")
@pytest.mark.parametrize("spec", GEOMETRIES, ids=lambda spec: f"d{spec.head_dim}")
def test_few_bits_add_up_in_16(
    spec: AttentionSpec, quant_max: int, host_target: tvm.target.Target
) -> None:
    rng = np.random.default_rng(quant_max)
    q = rng.standard_normal((13, spec.num_q_heads, spec.head_dim), dtype=np.float32)
    k = rng.standard_normal((71, spec.head_dim), dtype=np.float32)
    check(spec, q, k, (3 / quant_max, 3 / quant_max), "host", host_target, quant_max)
    q, k = (1e6 * np.sign(x) for x in (q, k))  # as large as they get
    q[0], k[0], k[1] = 1e6, 1e6, -1e6
    expected = check(spec, q, k, (0.02, 0.02), "host", host_target, quant_max)
    assert expected[0, 0] == -expected[0, 1] == quant_max**2 * spec.head_dim


def test_sums_of_16_bits_cannot_overflow() -> None:
    for features in (AVX2, AVX512):
        for bits in range(2, 8):
            quant_max = 2 ** (bits - 1) - 1
            narrow = int8_dot_method(features, quant_max).narrow
            assert narrow is not None
            for steps in (4, 16, 20, 32, 64):
                part = narrow.steps(steps)
                assert steps % part == 0
                assert part * 2 * (2 * quant_max) * quant_max < 2**15
        assert int8_dot_method(features).narrow is None, "pairs of 8 bits don't fit"


def four_way_dot(method: Int8DotMethod) -> Int8DotMethod:
    """The method with its instruction spelled out as documented: each int32 lane gains the products
    of four keys' bytes, signed or not as they are stored, and four signed query bytes."""
    num_bytes = method.lanes * method.group

    def accumulate(acc: Any, keys: Any, query: Any) -> Any:
        query_bytes = T.reinterpret(f"int8x{num_bytes}", query)
        for element in range(method.group):
            chosen = range(element, num_bytes, method.group)
            widened = [
                T.Cast(f"int32x{method.lanes}", pick([x], chosen)) for x in (keys, query_bytes)
            ]
            acc = acc + widened[0] * widened[1]
        return acc

    return replace(method, accumulate=accumulate)


def matrix_dot(method: Int8DotMethod) -> Int8DotMethod:
    """Likewise: of four int32 lanes two are the first query's, each gains eight products."""

    def accumulate(acc: Any, keys: Any, queries: Any) -> Any:
        group = method.group
        for element in range(group):
            first, second = element, element + group
            key = pick([keys], [first, second, first, second])
            query = pick([queries], [first, first, second, second])
            acc = acc + T.Cast("int32x4", key) * T.Cast("int32x4", query)
        return acc

    return replace(method, accumulate=accumulate)


@pytest.mark.parametrize(
    ("features", "spelled_out"),
    [(AVX512_VNNI, four_way_dot), (NEON_DOTPROD, four_way_dot), (NEON_I8MM, matrix_dot)],
    ids=["vnni", "dotprod", "i8mm"],
)
@pytest.mark.parametrize("spec", GEOMETRIES, ids=lambda spec: f"d{spec.head_dim}")
def test_layouts_of_other_targets(
    spec: AttentionSpec,
    features: CpuFeatures,
    spelled_out: Callable[[Int8DotMethod], Int8DotMethod],
    monkeypatch: pytest.MonkeyPatch,
    host_target: tvm.target.Target,
) -> None:
    # This machine may lack the instructions, but not what surrounds them: groups of four and eight,
    # unsigned keys, the bias that makes up for those, squares of two queries and two keys.
    method = spelled_out(int8_dot_method(features))
    for module in (scores_file, key_block):
        monkeypatch.setattr(module, "int8_dot_method", lambda *_: method)
    stages = {
        "quantize_keys": key_block.quantize_keys(spec, features),
        "pilot_scores": pilot_scores(spec, features),
    }
    kernels = build_kernels(stages, host_target)
    rng = np.random.default_rng(0)
    q = rng.standard_normal((7, spec.num_q_heads, spec.head_dim), dtype=np.float32)
    k = rng.standard_normal((70, spec.head_dim), dtype=np.float32)
    q[0], k[0], k[1] = 10, 10, -10
    blocks = -(-len(k) // method.register_keys) * method.register_blocks
    packed = filled(
        (blocks, spec.head_dim // method.group, method.lanes * method.group), method.key_dtype, 77
    )
    padded_queries = -(-len(q) // method.register_queries) * method.register_queries
    scores = filled((padded_queries, blocks * method.lanes), "int32", -77)
    scales = tensor(np.array(bucket_scales(0.02, SIGMA), np.float32))
    q_scale, k_scale = (filled((1,), "float32", np.nan) for _ in range(2))
    table = tensor(np.arange(len(k), dtype=np.int32))
    kernels["quantize_keys"](tensor(k), table, scales, packed, k_scale, 0)
    kernels["pilot_scores"](tensor(q), scales, packed, scores, q_scale, 0)
    q8 = twin.quantize(q[:, 0], q_scale.numpy()[0])
    k8 = twin.quantize(k, k_scale.numpy()[0])
    np.testing.assert_array_equal(scores.numpy()[: len(q), : len(k)], twin.pilot_scores(q8, k8))


TARGETS = {
    "x86-64": ({"mtriple": "x86_64-linux-gnu", "mcpu": "x86-64"}, "widening", "pmuludq"),
    "znver3": ({"mtriple": "x86_64-linux-gnu", "mcpu": "znver3"}, "pmaddwd", "vpmaddwd"),
    "skylake-avx512": (
        {"mtriple": "x86_64-linux-gnu", "mcpu": "skylake-avx512"},
        "pmaddwd",
        "vpmaddwd",
    ),
    "znver4": ({"mtriple": "x86_64-linux-gnu", "mcpu": "znver4"}, "vnni", "vpdpbusd"),
    "cortex-a72": ({"mtriple": "aarch64-linux-gnu", "mcpu": "cortex-a72"}, "widening", "mla"),
    "cortex-a76": ({"mtriple": "aarch64-linux-gnu", "mcpu": "cortex-a76"}, "dotprod", "sdot"),
    "cortex-a710": ({"mtriple": "aarch64-linux-gnu", "mcpu": "cortex-a710"}, "i8mm", "smmla"),
}
"""Options, the dot method they should get, and the instruction it should become."""


@pytest.mark.parametrize("name", TARGETS)
def test_each_target_gets_its_dot_product(name: str) -> None:
    options, method, instruction = TARGETS[name]
    target = tvm.target.Target({"kind": "llvm", **options})
    features = cpu_features(target)
    assert features.int8_dot == method
    module = build_kernels({"pilot": pilot_scores(GEOMETRIES[1], features)}, target)
    assert instruction in module.mod.inspect_source("asm")


@pytest.mark.parametrize("name", ["znver3", "skylake-avx512"])
def test_six_bits_take_pairs_of_bytes(name: str) -> None:
    target = tvm.target.Target({"kind": "llvm", **TARGETS[name][0]})
    kernel = pilot_scores(GEOMETRIES[1], cpu_features(target), 31)
    assert "vpmaddubsw" in build_kernels({"pilot": kernel}, target).mod.inspect_source("asm")


def test_register_tiles_stay_on_the_stack() -> None:
    limit_bytes, int32_bytes = 1024, 4  # beyond it TVM allocates from the heap
    for options, _, _ in TARGETS.values():
        method = int8_dot_method(cpu_features(tvm.target.Target({"kind": "llvm", **options})))
        assert method.register_scores * int32_bytes < limit_bytes
