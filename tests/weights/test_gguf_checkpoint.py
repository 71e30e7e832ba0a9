"""GGUF's way of saying things: interleaved rows, Llama 3's rotary divisors, names, and what it may
ask for that we don't run."""

from __future__ import annotations

import math
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shadowattn_tvm.config import Llama3RopeScaling
from shadowattn_tvm.errors import ConfigError, ShadowAttnError, WeightsError
from shadowattn_tvm.weights import convert_weight
from shadowattn_tvm.weights.gguf_checkpoint import GgufCheckpoint, deinterleave

from .tiny import Tiny, interleave, write_gguf

MODEL = Tiny()
WEIGHTS = MODEL.weights()


@pytest.mark.parametrize(("heads", "head_dim"), [(1, 2), (3, 4), (2, 64), (5, 80)])
def test_deinterleave_undoes_the_interleaving(heads: int, head_dim: int) -> None:
    rows = np.arange(heads * head_dim * 3, dtype=np.float32).reshape(-1, 3)
    np.testing.assert_array_equal(deinterleave(interleave(rows, head_dim), head_dim), rows)


def test_rotary_pairs_end_half_a_head_apart() -> None:
    """The definition, on one head of four rows: llama.cpp rotates (0, 1) and (2, 3), Hugging Face
    (0, 2) and (1, 3)."""
    rows = np.array([[0], [1], [2], [3]], np.float32)
    np.testing.assert_array_equal(deinterleave(rows, 4)[:, 0], [0, 2, 1, 3])


def test_scores_are_the_same_in_both_orders() -> None:
    """Rotating neighbours of interleaved rows and rotating halves of deinterleaved rows give the
    same attention scores, which is all the order may not change."""
    rng = np.random.default_rng(0)
    head_dim, hidden = 8, 12
    x = rng.standard_normal((5, hidden))
    w_q, w_k = rng.standard_normal((2, head_dim, hidden), dtype=np.float32)
    angles = np.arange(5)[:, None] * 100.0 ** (-np.arange(0, head_dim, 2) / head_dim)
    cos, sin = np.cos(angles), np.sin(angles)

    def rotate_neighbours(y: Any) -> Any:
        even, odd = y[:, 0::2], y[:, 1::2]
        return np.concatenate([even * cos - odd * sin, even * sin + odd * cos], axis=1)

    def rotate_halves(y: Any) -> Any:
        low, high = y[:, : head_dim // 2], y[:, head_dim // 2 :]
        return np.concatenate([low * cos - high * sin, low * sin + high * cos], axis=1)

    interleaved = rotate_neighbours(x @ w_q.T) @ rotate_neighbours(x @ w_k.T).T
    halves = [rotate_halves(x @ deinterleave(w, head_dim).T) for w in (w_q, w_k)]
    np.testing.assert_allclose(halves[0] @ halves[1].T, interleaved, rtol=1e-9)


def llama3_divisors(factor: float, base: float, head_dim: int) -> list[float]:
    """The divisors as Llama 3's own code makes them, one frequency at a time."""
    divisors = []
    for i in range(0, head_dim, 2):
        wavelength = 2 * math.pi * base ** (i / head_dim)
        if wavelength < 8192 / 4:
            divisors.append(1.0)
        elif wavelength > 8192 / 1:
            divisors.append(factor)
        else:
            smooth = (8192 / wavelength - 1) / (4 - 1)
            divisors.append(1 / ((1 - smooth) / factor + smooth))
    return divisors


def with_divisors(path: Path, divisors: list[float], head_dim: int) -> Path:
    model = Tiny(hidden=4 * head_dim, head_dim=head_dim)
    return write_gguf(
        path,
        model,
        model.weights(),
        metadata={"llama.rope.freq_base": 500000.0},
        extra_tensors={"rope_freqs.weight": np.array(divisors, np.float32)},
    )


@pytest.mark.parametrize("factor", [8.0, 32.0])
@pytest.mark.parametrize("head_dim", [64, 128])
def test_llama3_scaling_is_recognized(factor: float, head_dim: int, tmp_path: Path) -> None:
    divisors = llama3_divisors(factor, 500000.0, head_dim)
    checkpoint = GgufCheckpoint(with_divisors(tmp_path / "x.gguf", divisors, head_dim))
    assert checkpoint.architecture.rope_scaling == Llama3RopeScaling(
        factor=factor,
        low_freq_factor=1.0,
        high_freq_factor=4.0,
        original_max_position_embeddings=8192,
    )
    assert "rope_freqs.weight" not in checkpoint.shapes


def test_divisors_of_one_are_no_scaling(tmp_path: Path) -> None:
    checkpoint = GgufCheckpoint(with_divisors(tmp_path / "x.gguf", [1.0] * 32, 64))
    assert checkpoint.architecture.rope_scaling is None


@pytest.mark.parametrize("spoil", [lambda d: [*d[:-2], 5.0, 8.0], lambda d: d[:-1]])
def test_other_divisors_are_refused(spoil: Any, tmp_path: Path) -> None:
    divisors = spoil(llama3_divisors(8.0, 500000.0, 64))
    with pytest.raises(ConfigError, match=r"rope_freqs\.weight: expected Llama 3's"):
        GgufCheckpoint(with_divisors(tmp_path / "x.gguf", divisors, 64))


REFUSED = {
    "general.architecture": ("gemma3", "expected 'llama' or 'qwen2', got 'gemma3'"),
    "llama.expert_count": (8, "no support for mixture of experts, got 8"),
    "llama.attention.sliding_window": (4096, "no support for sliding-window attention, got 4096"),
    "llama.attention.value_length": (32, "values of another width than keys"),
    "llama.rope.dimension_count": (8, "no support for partial rotary embedding, got 8"),
    "llama.rope.scaling.type": ("yarn", "rotary scaling other than Llama 3's"),
    "llama.block_count": (None, "num_hidden_layers: Field required"),
    "llama.attention.head_count": ([4, 4], "num_attention_heads: Input should be a valid integer"),
    "llama.attention.head_count_kv": (3, "expected a divisor of num_attention_heads 4, got 3"),
    "llama.embedding_length": (1 << 30, "hidden_size: Input should be less than"),
    "llama.attention.layer_norm_rms_epsilon": (0.0, "rms_norm_eps: Input should be greater than 0"),
    "tokenizer.ggml.model": ("bert", "expected 'gpt2' or 'llama', got 'bert'"),
    "tokenizer.ggml.pre": ("tekken", "expected one of gpt-2, smollm"),
    "tokenizer.chat_template": ("### Instruction:", "of no layout known here"),
}


@pytest.mark.parametrize("key", REFUSED)
def test_what_we_do_not_run_is_refused_by_name(key: str, tmp_path: Path) -> None:
    value, message = REFUSED[key]
    source = write_gguf(tmp_path / "x.gguf", MODEL, WEIGHTS, metadata={key: value})
    with pytest.raises(ConfigError) as caught:
        convert_weight(source, "q0f32", tmp_path / "out")
    assert message in str(caught.value)
    assert not (tmp_path / "out").exists()


DAMAGED = {
    "split.count": (3, "one of 3 parts"),
    "tokenizer.ggml.tokens": (["a", "a"], "every token once"),
    "tokenizer.ggml.token_type": ([1, 2], "a type for every token"),
    "tokenizer.ggml.merges": (["t h e"], "expected pairs, got 't h e'"),
    "tokenizer.ggml.bos_token_id": (100_000, "expected an id below 265, got 100000"),
}


@pytest.mark.parametrize("key", DAMAGED)
def test_damaged_metadata_is_named(key: str, tmp_path: Path) -> None:
    value, message = DAMAGED[key]
    source = write_gguf(tmp_path / "x.gguf", MODEL, WEIGHTS, metadata={key: value})
    with pytest.raises(WeightsError) as caught:
        convert_weight(source, "q0f32", tmp_path / "out")
    assert message in str(caught.value)


def test_merges_of_unknown_tokens_are_refused(tmp_path: Path) -> None:
    source = write_gguf(
        tmp_path / "x.gguf", MODEL, WEIGHTS, metadata={"tokenizer.ggml.merges": ["qqq zzz"]}
    )
    with pytest.raises(WeightsError, match="expected a tokenizer"):
        convert_weight(source, "q0f32", tmp_path / "out")


def test_more_tokens_than_embeddings_are_refused(tmp_path: Path) -> None:
    model = Tiny(vocab=200)
    source = write_gguf(tmp_path / "x.gguf", model, model.weights())
    with pytest.raises(WeightsError, match="at most the model's 200 tokens, got 265"):
        convert_weight(source, "q0f32", tmp_path / "out")


STRANGE_VALUES = (None, True, 0, 7, 2**31, 3.5, math.nan, math.inf, "", "x", [1], [1.5], ["x"])


@pytest.mark.parametrize("key", [*MODEL.gguf_metadata(), "split.count", "llama.rope.scaling.type"])
def test_any_value_anywhere_is_no_crash(key: str, tmp_path: Path) -> None:
    for value in STRANGE_VALUES:
        source = write_gguf(tmp_path / "x.gguf", MODEL, WEIGHTS, metadata={key: value})
        with suppress(ShadowAttnError):
            convert_weight(source, "q0f32", tmp_path / "out")
