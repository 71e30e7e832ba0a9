"""Rotary embedding: any geometry, long positions, Llama 3's scaling, batches at an offset."""

from __future__ import annotations

import math
from typing import Literal

import numpy as np
import pytest
import tvm

from tir_kernels.build import build_kernels
from tir_kernels.reference import rotary as twin
from tir_kernels.rotary import Llama3Scaling, rotary_frequencies, split_rotary
from tir_kernels.spec import AttentionSpec, SpecError

from .dense_harness import HALF_UNIT

LLAMA3 = Llama3Scaling(
    factor=32.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_position_embeddings=8192
)


@pytest.mark.parametrize(
    ("num_q", "num_kv", "head_dim", "dtype"),
    [
        (1, 1, 128, "float32"),
        (9, 3, 64, "float32"),
        (7, 1, 80, "float32"),
        (8, 1, 256, "float32"),
        (4, 2, 16, "float32"),
        (9, 3, 64, "float16"),
        (7, 1, 80, "float16"),
    ],
)
def test_kernel_equals_twin(
    num_q: int,
    num_kv: int,
    head_dim: int,
    dtype: Literal["float32", "float16"],
    host_target: tvm.target.Target,
) -> None:
    spec = AttentionSpec(num_q, num_kv, head_dim, head_dim**-0.5, dtype)
    rtol = HALF_UNIT if dtype == "float16" else 0.0
    kernel = build_kernels({"rotary": split_rotary(spec, 100000.0, None)}, host_target)["rotary"]
    rng = np.random.default_rng(head_dim + num_q)
    for tokens in (0, 1, 5, 67):
        qkv_shape = (tokens, num_q + 2 * num_kv, head_dim)
        qkv = rng.standard_normal(qkv_shape, dtype=np.float32).astype(dtype)
        positions = rng.integers(0, 8192, tokens).astype(np.int32)
        shapes = [(tokens, heads, head_dim) for heads in (num_q, num_kv, num_kv)]
        outputs = [tvm.runtime.tensor(np.full(shape, np.nan, dtype)) for shape in shapes]
        kernel(tvm.runtime.tensor(qkv), tvm.runtime.tensor(positions), *outputs, 1)
        frequencies = rotary_frequencies(head_dim, 100000.0, None)
        expected = twin.split_rotary(qkv, positions, num_kv, frequencies)
        for got, want in zip(outputs, expected, strict=True):
            np.testing.assert_allclose(got.numpy(), want, rtol=rtol, atol=2e-6)


def test_without_rope_the_projection_is_only_split(host_target: tvm.target.Target) -> None:
    spec = AttentionSpec(2, 1, 64, 0.125)
    kernel = build_kernels({"rotary": split_rotary(spec, 10000.0, None)}, host_target)["rotary"]
    qkv = np.random.default_rng(0).standard_normal((3, 4, 64), dtype=np.float32)
    q, k, v = (tvm.runtime.tensor(np.empty((3, h, 64), np.float32)) for h in (2, 1, 1))
    positions = tvm.runtime.tensor(np.array([5, 6, 7], np.int32))
    kernel(tvm.runtime.tensor(qkv), positions, q, k, v, 0)
    np.testing.assert_array_equal(np.concatenate([q.numpy(), k.numpy(), v.numpy()], 1), qkv)


def test_llama3_scaling_leaves_high_frequencies_and_divides_low_ones() -> None:
    plain = rotary_frequencies(128, 500000.0, None)
    scaled = rotary_frequencies(128, 500000.0, LLAMA3)
    wavelengths = 2 * math.pi / plain
    short, long = wavelengths < 8192 / 4.0, wavelengths > 8192 / 1.0
    assert all(band.any() for band in (short, long, ~short & ~long))
    np.testing.assert_allclose(scaled[short], plain[short], rtol=1e-6)
    np.testing.assert_allclose(scaled[long], plain[long] / 32.0, rtol=1e-6)
    between = ~short & ~long
    assert (scaled[between] < plain[between]).all()
    assert (scaled[between] > plain[between] / 32.0).all()


@pytest.mark.golden
def test_frequencies_equal_hugging_face() -> None:
    transformers = pytest.importorskip("transformers", reason="needs the calibrate extra")
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    config = transformers.LlamaConfig(
        hidden_size=2048,
        num_attention_heads=32,
        max_position_embeddings=131072,
        rope_parameters={
            "rope_type": "llama3",
            "rope_theta": 500000.0,
            "factor": 32.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 8192,
        },
    )
    reference, _ = ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")
    ours = rotary_frequencies(64, 500000.0, LLAMA3)
    np.testing.assert_allclose(ours, reference.numpy(), rtol=3e-7)


def test_senseless_scaling_is_refused() -> None:
    with pytest.raises(SpecError, match="high_freq_factor"):
        Llama3Scaling(8.0, 4.0, 1.0, 8192)
