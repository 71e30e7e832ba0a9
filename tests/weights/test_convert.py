"""Conversion end to end on tiny checkpoints: what goes in comes out, in TVM's own loader too.

What can break it: interleaved Q/K rows, fused parameters, tied embeddings, block borders (a
parameter of several blocks), element types.
"""

from __future__ import annotations

import json
import tracemalloc
from pathlib import Path
from typing import Any, Literal

import gguf
import ml_dtypes
import numpy as np
import pytest
import tvm
from tvm.contrib import tvmjs

from shadowattn_tvm.config import QUANTIZATIONS, LlamaConfig
from shadowattn_tvm.weights import convert_weight, load_parameters, parameter_layout
from shadowattn_tvm.weights.group_quantize import quantize_q4

from .tiny import Tiny, expected_parameters, write_gguf, write_hugging_face

Kind = gguf.GGMLQuantizationType
MODEL = Tiny()
WEIGHTS = MODEL.weights()


def assert_equal(got: dict[str, Any], expected: dict[str, Any]) -> None:
    assert got.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(got[name], values, err_msg=name)


def test_gguf_comes_out_bit_for_bit(gguf_file: Path, tmp_path: Path) -> None:
    directory = convert_weight(gguf_file, "q0f32", tmp_path / "out")
    assert_equal(load_parameters(directory, verify=True), expected_parameters(MODEL, WEIGHTS))
    assert directory.architecture == LlamaConfig(
        hidden_size=64,
        intermediate_size=96,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        num_hidden_layers=2,
        rms_norm_eps=1e-5,
        vocab_size=272,
        tie_word_embeddings=True,
        position_embedding_base=10000,
        context_window_size=512,
        prefill_chunk_size=256,
    )
    chat = directory.chat_config
    assert (chat.bos_token_id, chat.eos_token_id, chat.pad_token_id) == (1, 2, 2)
    assert chat.conv_template.name == "chatml"
    assert chat.stop_token_ids == (0, 2)
    assert chat.active_vocab_size == 265
    assert chat.tokenizer_info.token_postproc_method == "byte_level"


@pytest.mark.parametrize("num_shards", [1, 3])
def test_hugging_face_comes_out_bit_for_bit(num_shards: int, tmp_path: Path) -> None:
    model = Tiny(tied=False)
    weights = model.weights(seed=1)
    source = write_hugging_face(tmp_path / "in", model, weights, num_shards=num_shards)
    directory = convert_weight(source, "q0f32", tmp_path / "out")
    parameters = load_parameters(directory)
    assert_equal(parameters, expected_parameters(model, weights))
    assert "lm_head.weight" in parameters


def test_both_sources_agree(gguf_file: Path, hugging_face: Path, tmp_path: Path) -> None:
    one = convert_weight(gguf_file, "q4f32_1", tmp_path / "gguf")
    other = convert_weight(hugging_face, "q4f32_1", tmp_path / "hf")
    assert one.weight_hash == other.weight_hash
    assert one.architecture == other.architecture
    assert one.chat_config.conv_template == other.chat_config.conv_template


@pytest.mark.parametrize("quantization", QUANTIZATIONS)
def test_tvm_loads_the_same(quantization: str, gguf_file: Path, tmp_path: Path) -> None:
    directory = convert_weight(gguf_file, quantization, tmp_path / "out")
    loaded, metadata = tvmjs.load_tensor_cache(str(directory.path), tvm.cpu())
    ours = load_parameters(directory)
    assert_equal({name: tensor.numpy() for name, tensor in loaded.items()}, ours)
    layout = parameter_layout(directory.architecture, directory.quantization)
    assert {n: (tuple(t.shape), str(t.dtype)) for n, t in loaded.items()} == {
        n: (info.shape, info.dtype) for n, info in layout.items()
    }
    assert metadata["ParamSize"] == len(layout)
    assert metadata["ParamBytes"] == sum(info.num_bytes for info in layout.values())
    weights = sum(w.size for w in WEIGHTS.values())
    assert metadata["BitsPerParam"] == pytest.approx(metadata["ParamBytes"] * 8 / weights)


@pytest.mark.parametrize(
    ("quantization", "dtype"), [("q4f32_1", "float32"), ("q4f16_1", "float16")]
)
def test_quantized_parameters_are_those_of_the_float_ones(
    quantization: str, dtype: Literal["float32", "float16"], gguf_file: Path, tmp_path: Path
) -> None:
    directory = convert_weight(gguf_file, quantization, tmp_path / "out")
    expected: dict[str, Any] = {}
    for name, values in expected_parameters(MODEL, WEIGHTS).items():
        if values.ndim == 1:
            expected[name] = values.astype(dtype)
            continue
        stem = name.removesuffix(".weight")
        expected[f"{stem}.q_weight"], expected[f"{stem}.q_scale"] = quantize_q4(values, dtype)
    assert_equal(load_parameters(directory), expected)


@pytest.mark.parametrize("kind", [Kind.F16, Kind.BF16, Kind.Q8_0, Kind.Q4_0, Kind.Q4_1])
def test_every_element_type_is_dequantized(kind: Kind, tmp_path: Path) -> None:
    source = write_gguf(tmp_path / "in.gguf", MODEL, WEIGHTS, matrix_type=kind)
    directory = convert_weight(source, "q0f32", tmp_path / "out")
    stored = {
        name: gguf.quants.dequantize(gguf.quants.quantize(w, kind), kind) if w.ndim == 2 else w
        for name, w in WEIGHTS.items()
    }
    assert_equal(load_parameters(directory), expected_parameters(MODEL, stored))


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_half_precision_widens_exactly(dtype: Any, tmp_path: Path) -> None:
    weights = {name: w.astype(dtype) for name, w in WEIGHTS.items()}
    source = write_hugging_face(tmp_path / "in", MODEL, weights)
    directory = convert_weight(source, "q0f32", tmp_path / "out")
    assert_equal(load_parameters(directory), expected_parameters(MODEL, weights))


def test_a_parameter_of_several_blocks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of one head each: every matrix crosses several borders, one leaves a rest."""
    monkeypatch.setattr("shadowattn_tvm.weights.convert._BLOCK_WEIGHTS", 1)
    monkeypatch.setattr("shadowattn_tvm.weights.shard_writer.SHARD_BYTES", 20_000)
    model = Tiny(vocab=270)  # not a multiple of the head dim: the last block is shorter
    weights = model.weights(seed=2)
    source = write_gguf(tmp_path / "in.gguf", model, weights)
    directory = convert_weight(source, "q0f32", tmp_path / "out")
    assert_equal(load_parameters(directory, verify=True), expected_parameters(model, weights))
    sizes = [shard.nbytes for shard in directory.tensor_cache.shards]
    assert len(sizes) > 5
    for shard in directory.tensor_cache.shards:
        assert shard.nbytes <= 20_000 or len(shard.records) == 1


def test_limits_and_template_can_be_chosen(gguf_file: Path, tmp_path: Path) -> None:
    directory = convert_weight(
        gguf_file,
        "q0f32",
        tmp_path / "out",
        context_window_size=128,
        prefill_chunk_size=32,
        conv_template="smollm2",
    )
    chat = directory.chat_config
    assert (chat.context_window_size, chat.prefill_chunk_size) == (128, 32)
    assert directory.architecture.context_window_size == 128
    assert chat.conv_template.name == "smollm2"


def test_progress_counts_every_weight_once(gguf_file: Path, tmp_path: Path) -> None:
    seen: list[tuple[int, int]] = []
    convert_weight(
        gguf_file, "q4f32_1", tmp_path / "out", progress=lambda *counts: seen.append(counts)
    )
    total = sum(w.size for w in WEIGHTS.values())
    assert seen[-1] == (total, total)
    assert seen == sorted(set(seen))


def test_sampling_settings_come_from_generation_config(tmp_path: Path) -> None:
    source = write_hugging_face(tmp_path / "in", MODEL, WEIGHTS)
    content = {"temperature": 0.25, "top_p": 0.5, "eos_token_id": [2, 0], "max_length": 20}
    (source / "generation_config.json").write_text(json.dumps(content))
    chat = convert_weight(source, "q0f32", tmp_path / "out").chat_config
    assert (chat.temperature, chat.top_p, chat.eos_token_id) == (0.25, 0.5, (2, 0))


def test_a_tied_model_may_store_its_head_twice(tmp_path: Path) -> None:
    extra = {
        "lm_head.weight": WEIGHTS["model.embed_tokens.weight"],
        "model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(8, np.float32),
    }
    source = write_hugging_face(tmp_path / "in", MODEL, {**WEIGHTS, **extra})
    directory = convert_weight(source, "q0f32", tmp_path / "out")
    assert_equal(load_parameters(directory), expected_parameters(MODEL, WEIGHTS))


def test_memory_stays_small_beside_the_largest_tensor(tmp_path: Path) -> None:
    model = Tiny(hidden=512, vocab=40_000, head_dim=128)
    weights = model.weights()
    largest_bytes = weights["model.embed_tokens.weight"].nbytes
    source = write_gguf(tmp_path / "in.gguf", model, weights, matrix_type=Kind.F16)
    del weights
    tracemalloc.start()
    try:
        convert_weight(source, "q4f32_1", tmp_path / "out")
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert largest_bytes > 80e6
    assert peak_bytes < 60e6  # six blocks of 8 MiB at once, and the scales
