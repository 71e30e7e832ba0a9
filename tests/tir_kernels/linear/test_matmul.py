"""Linear layers against their twins.

What can break them: no tokens, one token, token counts around the panel and block sizes; fewer
outputs than a register tile or a task; output counts that make tasks overlap; depths below a
vector, off the vector width, and beyond one depth block; quantization groups that don't fill a
vector of words.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pytest
import tvm
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from shadowattn_tvm.bench.timing import use_threads
from tir_kernels.build import build_kernels
from tir_kernels.features import AVX512_VNNI, GENERIC, NEON, NEON_DOTPROD, CpuFeatures, cpu_features
from tir_kernels.linear.matmul import embedding, linear, linear_decode
from tir_kernels.reference import linear as twin
from tir_kernels.spec import LinearSpec, SpecError

from ..assembly import CONVERSION_CALL
from ..dense_harness import HALF_UNIT

FLOAT_SPECS = (
    LinearSpec(1, 1),
    LinearSpec(5, 3),  # fewer outputs than a register tile, less depth than a vector
    LinearSpec(7, 100),  # register tiles overlap
    LinearSpec(64, 33),  # tasks overlap
    LinearSpec(101, 513),  # two depth blocks of different, odd sizes
    LinearSpec(96, 576),
)
QUANTIZED_SPECS = (
    LinearSpec(1, 32, "q4f32_1"),
    LinearSpec(50, 96, "q4f32_1"),  # 12 words: one and a half vectors of 8
    LinearSpec(53, 544, "q4f32_1"),  # two depth blocks, the second one shorter
    LinearSpec(96, 576, "q4f32_1"),
)
HALF_SPECS = (
    *(replace(spec, quantization="q0f16") for spec in FLOAT_SPECS[1:]),
    *(replace(spec, quantization="q4f16_1") for spec in QUANTIZED_SPECS),
    LinearSpec(96, 576, "q0f16", float32_output=True),
    LinearSpec(96, 576, "q4f16_1", float32_output=True),
)
TOKENS = (0, 1, 2, 3, 4, 5, 8, 9, 16, 17, 64, 127, 128, 129, 257)
MAX_HYPOTHESIS_TOKENS = 300


def _spec_id(spec: LinearSpec) -> str:
    wide = "-to-float32" if spec.float32_output else ""
    return f"{spec.quantization}-{spec.out_features}x{spec.in_features}{wide}"


@dataclass(frozen=True)
class Layer:
    """One spec, compiled, with random weights."""

    spec: LinearSpec
    weight: NDArray[np.float32]
    operands: tuple[Any, ...]
    many: Callable[..., None]
    one: Callable[..., None]

    def __call__(self, x: NDArray[np.float32], *, decode: bool = False) -> NDArray[np.float32]:
        shape = (len(x), self.spec.out_features)
        y = tvm.runtime.tensor(np.full(shape, np.nan, self.spec.output_dtype))
        (self.one if decode else self.many)(tvm.runtime.tensor(x), *self.operands, y)
        result: NDArray[np.float32] = y.numpy()
        return result


@functools.cache
def _layer(spec: LinearSpec, target: tvm.target.Target, features: CpuFeatures) -> Layer:
    functions = {"many": linear(spec, features), "one": linear_decode(spec, features)}
    module = build_kernels(functions, target)
    rng = np.random.default_rng(spec.out_features)
    weight = rng.standard_normal((spec.out_features, spec.in_features), dtype=np.float32)
    operands: tuple[NDArray[Any], ...] = (weight.astype(spec.dtype),)
    if spec.quantized:
        operands = twin.quantize_q4(weight, spec.dtype)
        weight = twin.dequantize_q4(*operands)
    else:
        weight = operands[0].astype(np.float32)
    tensors = tuple(tvm.runtime.tensor(operand) for operand in operands)
    return Layer(spec, weight, tensors, module["many"], module["one"])


def _assert_close(layer: Layer, x: NDArray[np.float32], y: NDArray[np.float32]) -> None:
    expected = twin.linear(x, layer.weight)
    # relative to the size of the summands: a sum may cancel
    size = twin.linear(np.abs(x), np.abs(layer.weight))
    rounding = HALF_UNIT if layer.spec.output_dtype == "float16" else 0.0
    assert y.shape == expected.shape
    assert np.all(np.abs(y - expected) <= 1e-5 * size + rounding * np.abs(expected))
    atol = 1e-4 * np.sqrt(x.shape[1])
    np.testing.assert_allclose(y, expected, rtol=1e-4 + rounding, atol=atol)


def _tokens(spec: LinearSpec, num_tokens: int) -> NDArray[np.float32]:
    rng = np.random.default_rng(num_tokens)
    x = rng.standard_normal((num_tokens, spec.in_features), dtype=np.float32)
    return x.astype(spec.dtype)


@pytest.mark.parametrize("spec", FLOAT_SPECS + QUANTIZED_SPECS + HALF_SPECS, ids=_spec_id)
def test_any_number_of_tokens(spec: LinearSpec, host_target: tvm.target.Target) -> None:
    layer = _layer(spec, host_target, cpu_features(host_target))
    for num_tokens in TOKENS:
        x = _tokens(spec, num_tokens)
        _assert_close(layer, x, layer(x))


@pytest.mark.parametrize("spec", FLOAT_SPECS + QUANTIZED_SPECS + HALF_SPECS, ids=_spec_id)
def test_decode(spec: LinearSpec, host_target: tvm.target.Target) -> None:
    layer = _layer(spec, host_target, cpu_features(host_target))
    x = _tokens(spec, 1)
    y = layer(x, decode=True)
    _assert_close(layer, x, y)
    np.testing.assert_array_equal(y, layer(x))  # one token: the same path at run time


@pytest.mark.parametrize("features", [GENERIC, NEON, AVX512_VNNI], ids=lambda f: f.isa)
@pytest.mark.parametrize(
    "spec", [FLOAT_SPECS[4], QUANTIZED_SPECS[2], HALF_SPECS[3], HALF_SPECS[7]], ids=_spec_id
)
def test_tiles_of_other_targets(
    spec: LinearSpec, features: CpuFeatures, host_target: tvm.target.Target
) -> None:
    # no target-specific instruction is named, so any tile runs here, if slowly
    layer = _layer(spec, host_target, features)
    for num_tokens in (1, 3, 5, 33, 129):
        x = _tokens(spec, num_tokens)
        _assert_close(layer, x, layer(x))


@settings(deadline=None, max_examples=60)
@given(
    num_tokens=st.integers(0, MAX_HYPOTHESIS_TOKENS),
    quantized=st.booleans(),
    seed=st.integers(0, 2**32 - 1),
    magnitude=st.sampled_from([1e-20, 1e-3, 1.0, 1e10]),
)
def test_random_tokens(
    num_tokens: int,
    quantized: bool,
    seed: int,
    magnitude: float,
    host_target: tvm.target.Target,
) -> None:
    spec = (QUANTIZED_SPECS if quantized else FLOAT_SPECS)[2]
    layer = _layer(spec, host_target, cpu_features(host_target))
    x = np.random.default_rng(seed).standard_normal((num_tokens, spec.in_features))
    x = (x * magnitude).astype(np.float32)
    y = layer(x)
    size = twin.linear(np.abs(x), np.abs(layer.weight))
    assert np.all(np.abs(y - twin.linear(x, layer.weight)) <= 1e-5 * size)


@pytest.mark.parametrize("spec", [FLOAT_SPECS[3], QUANTIZED_SPECS[1]], ids=_spec_id)
@pytest.mark.parametrize("num_tokens", [2, 21, 150])
def test_tokens_do_not_mix(
    spec: LinearSpec, num_tokens: int, host_target: tvm.target.Target
) -> None:
    layer = _layer(spec, host_target, cpu_features(host_target))
    x = _tokens(spec, num_tokens)
    clean = layer(x)
    x[num_tokens - 1] = np.nan
    x[num_tokens // 2 - 1] = np.inf
    y = layer(x)
    spoilt = [num_tokens - 1, num_tokens // 2 - 1]
    assert not np.isfinite(y[spoilt]).any()
    np.testing.assert_array_equal(np.delete(y, spoilt, 0), np.delete(clean, spoilt, 0))


@pytest.mark.parametrize("spec", [FLOAT_SPECS[4], QUANTIZED_SPECS[2]], ids=_spec_id)
def test_the_same_bits_with_any_number_of_threads(
    spec: LinearSpec, host_target: tvm.target.Target
) -> None:
    layer = _layer(spec, host_target, cpu_features(host_target))
    num_threads = tvm.get_global_func("runtime.NumThreads")()
    inputs = [_tokens(spec, num_tokens) for num_tokens in (1, 2, 7, 200)]
    try:
        results = []
        for threads in (1, 2, 3):
            use_threads(threads)
            results.append([layer(x) for x in inputs])
    finally:
        use_threads(num_threads)
    for other in results[1:]:
        for got, want in zip(other, results[0], strict=True):
            np.testing.assert_array_equal(got, want)


@pytest.mark.parametrize(
    ("target", "features", "vector_product"),
    [
        ({"mcpu": "znver4", "mtriple": "x86_64-linux-gnu"}, AVX512_VNNI, "%zmm"),
        ({"mcpu": "x86-64", "mtriple": "x86_64-linux-gnu"}, GENERIC, "mulps"),
        ({"mcpu": "cortex-a76", "mtriple": "aarch64-linux-gnu"}, NEON_DOTPROD, "fmla"),
    ],
    ids=["avx512", "generic", "neon"],
)
@pytest.mark.parametrize("quantization", ["q0f32", "q4f32_1"])
def test_compiles_for(
    target: dict[str, str], features: CpuFeatures, vector_product: str, quantization: Any
) -> None:
    llvm = tvm.target.Target({"kind": "llvm", **target})
    assert cpu_features(llvm) == features
    spec = LinearSpec(960, 576, quantization)
    functions = {"many": linear(spec, features), "one": linear_decode(spec, features)}
    assembly = build_kernels(functions, llvm).mod.inspect_source("asm")
    assert vector_product in assembly


@pytest.mark.parametrize("quantization", ["q0f16", "q4f16_1"])
@pytest.mark.parametrize(
    "target",
    [
        {"mcpu": "haswell", "mtriple": "x86_64-linux-gnu"},
        {"mcpu": "znver4", "mtriple": "x86_64-linux-gnu"},
        {"mcpu": "cortex-a72", "mtriple": "aarch64-linux-gnu"},
    ],
    ids=lambda target: target["mcpu"],
)
def test_no_function_converts_float16(target: dict[str, str], quantization: Any) -> None:
    llvm = tvm.target.Target({"kind": "llvm", **target})
    features, spec = cpu_features(llvm), LinearSpec(101, 1056, quantization)
    functions = {"many": linear(spec, features), "one": linear_decode(spec, features)}
    if spec.quantized:
        functions["embedding"] = embedding(spec, features)
    assert CONVERSION_CALL.findall(build_kernels(functions, llvm).mod.inspect_source("asm")) == []


@pytest.mark.parametrize("quantization", ["q4f32_1", "q4f16_1"])
def test_embedding_is_exact(
    quantization: Literal["q4f32_1", "q4f16_1"], host_target: tvm.target.Target
) -> None:
    spec = LinearSpec(97, 96, quantization)
    weights = np.random.default_rng(0).standard_normal((97, 96), dtype=np.float32)
    table = twin.quantize_q4(weights, spec.dtype)
    function = embedding(spec, cpu_features(host_target))
    kernel = build_kernels({"embedding": function}, host_target)["embedding"]
    operands = [tvm.runtime.tensor(part) for part in table]
    for ids in ([], [0], [96], [5, 5, 96, 0, 31], list(range(97))):
        rows = np.array(ids, dtype=np.int32)
        y = tvm.runtime.tensor(np.full((len(ids), 96), np.nan, spec.dtype))
        kernel(tvm.runtime.tensor(rows), *operands, y)
        np.testing.assert_array_equal(y.numpy(), twin.embedding(rows, *table))


def test_embedding_refuses_a_float_table() -> None:
    with pytest.raises(SpecError, match=r"expected a 4-bit embedding table, got q0f32"):
        embedding(LinearSpec(97, 96), GENERIC)


def test_quantize_follows_mlc() -> None:
    group = np.zeros((1, 32), np.float32)
    group[0, :8] = [7.0, -7.0, 0.5, 1.5, -0.5, -1.5, 3.0, 0.0]  # scale 1, halves to even
    q_weight, q_scale = twin.quantize_q4(group)
    assert q_scale.tolist() == [[1.0]]
    assert q_weight[0, 0] == 0x7_A_6_6_8_8_0_E
    assert q_weight[0, 1:].tolist() == [0x77777777] * 3


def test_quantize_a_group_of_zeros() -> None:
    q_weight, q_scale = twin.quantize_q4(np.zeros((2, 64), np.float32))
    assert not q_scale.any()
    assert (q_weight == 0x77777777).all()
    assert not twin.dequantize_q4(q_weight, q_scale).any()


def test_dequantize_undoes_quantize() -> None:
    weights = np.random.default_rng(1).standard_normal((9, 320), dtype=np.float32)
    q_weight, q_scale = twin.quantize_q4(weights)
    restored = twin.dequantize_q4(q_weight, q_scale)
    half_step = np.repeat(q_scale, 32, axis=1) / 2
    assert np.all(np.abs(restored - weights) <= half_step * (1 + 1e-5))
