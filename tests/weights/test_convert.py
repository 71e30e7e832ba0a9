"""Conversion end to end on tiny checkpoints: what goes in comes out, in TVM's own loader too, and
every way it can go wrong leaves nothing behind.

What can break it: interleaved Q/K rows, fused parameters, tied embeddings, block borders (a
parameter of several blocks), element types, and inputs that are damaged or hostile.
"""

from __future__ import annotations

import errno
import json
import os
import resource
import shutil
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gguf
import ml_dtypes
import numpy as np
import pytest
import tvm
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tvm.contrib import tvmjs

from shadowattn_tvm.config import LlamaConfig
from shadowattn_tvm.errors import ConfigError, OutputError, ShadowAttnError, WeightsError
from shadowattn_tvm.weights import (
    convert_weight,
    load_parameters,
    open_model_directory,
    parameter_layout,
)
from shadowattn_tvm.weights.group_quantize import quantize_q4

from .tiny import Tiny, expected_parameters, write_gguf, write_hugging_face

Kind = gguf.GGMLQuantizationType
MODEL = Tiny()
WEIGHTS = MODEL.weights()


@pytest.fixture(scope="module")
def gguf_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf", MODEL, WEIGHTS)


@pytest.fixture(scope="module")
def hugging_face(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_hugging_face(tmp_path_factory.mktemp("hf") / "tiny", MODEL, WEIGHTS)


def assert_equal(got: dict[str, Any], expected: dict[str, Any]) -> None:
    assert got.keys() == expected.keys()
    for name, values in expected.items():
        np.testing.assert_array_equal(got[name], values, err_msg=name)


# --- What goes in comes out ------------------------------------------------------------------


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


@pytest.mark.parametrize("quantization", ["q0f32", "q4f32_1"])
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


def test_quantized_parameters_are_those_of_the_float_ones(gguf_file: Path, tmp_path: Path) -> None:
    directory = convert_weight(gguf_file, "q4f32_1", tmp_path / "out")
    expected: dict[str, Any] = {}
    for name, values in expected_parameters(MODEL, WEIGHTS).items():
        if values.ndim == 1:
            expected[name] = values
            continue
        stem = name.removesuffix(".weight")
        expected[f"{stem}.q_weight"], expected[f"{stem}.q_scale"] = quantize_q4(values)
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
    monkeypatch.setattr("shadowattn_tvm.weights.convert._BLOCK_BYTES", 1)
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


# --- Where it goes ---------------------------------------------------------------------------


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_converting_again_replaces_and_keeps_other_files(gguf_file: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    convert_weight(gguf_file, "q0f32", output)
    (output / "lib.so").write_bytes(b"compiled")
    (output / "notes").mkdir()
    (output / "notes" / "a.txt").write_text("mine")
    directory = convert_weight(gguf_file, "q4f32_1", output)
    assert directory.quantization == "q4f32_1"
    assert (output / "lib.so").read_bytes() == b"compiled"
    assert (output / "notes" / "a.txt").read_text() == "mine"
    assert {p.name for p in output.glob("params_shard_*")} == {"params_shard_0.bin"}
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_another_folder_is_not_overwritten(gguf_file: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("ten years of work")
    with pytest.raises(OutputError, match="empty or new folder"):
        convert_weight(gguf_file, "q0f32", tmp_path)
    assert snapshot(tmp_path) == {"thesis.tex": b"ten years of work"}


def test_a_file_is_not_overwritten(gguf_file: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(OutputError, match="got a file"):
        convert_weight(gguf_file, "q0f32", tmp_path / "out")
    assert snapshot(tmp_path) == {"out": b"mine"}


def test_the_source_is_not_swallowed(gguf_file: Path, tmp_path: Path) -> None:
    output = convert_weight(gguf_file, "q0f32", tmp_path / "out").path
    inside = shutil.copy(gguf_file, output / "tiny.gguf")
    before = snapshot(output)
    for source in (Path(inside), output):
        with pytest.raises(OutputError, match="lies in it"):
            convert_weight(source, "q4f32_1", output)
    assert snapshot(output) == before


@contextmanager
def file_size_limit(num_bytes: int) -> Iterator[None]:
    """The kernel refuses to let files grow beyond, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_file_too_large_for_the_system_leaves_nothing(gguf_file: Path, tmp_path: Path) -> None:
    with file_size_limit(100_000), pytest.raises(OutputError, match="files this large"):
        convert_weight(gguf_file, "q0f32", tmp_path / "new" / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("code", "message"),
    [(errno.ENOSPC, "disk is full"), (errno.EDQUOT, "quota"), (errno.EIO, "disk reported")],
)
def test_a_disk_that_fills_up_leaves_the_old_model(
    code: int, message: str, gguf_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = convert_weight(gguf_file, "q0f32", tmp_path / "out").path
    before = snapshot(tmp_path)

    def full(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("shadowattn_tvm.weights.shard_writer.ShardWriter.finish", full)
    with pytest.raises(OutputError, match=message):
        convert_weight(gguf_file, "q4f32_1", output)
    assert snapshot(tmp_path) == before


def test_a_read_only_place_is_named(
    gguf_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(self: Path, *_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(self))

    monkeypatch.setattr(Path, "mkdir", read_only)
    with pytest.raises(OutputError, match="read-only"):
        convert_weight(gguf_file, "q0f32", tmp_path / "out")


def test_an_interrupt_leaves_nothing(gguf_file: Path, tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        if done > total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert_weight(gguf_file, "q0f32", tmp_path / "new" / "out", progress=interrupt)
    assert list(tmp_path.iterdir()) == []


# --- What is refused -------------------------------------------------------------------------

Edit = Callable[[dict[str, Any]], None]


def _set(name: str, value: Any) -> Edit:
    def edit(weights: dict[str, Any]) -> None:
        weights[name] = value

    return edit


def _with_nan(weights: dict[str, Any]) -> None:
    damaged = weights["model.layers.1.mlp.up_proj.weight"].copy()
    damaged[3, 5] = np.nan
    damaged[4, 0] = np.inf
    weights["model.layers.1.mlp.up_proj.weight"] = damaged


BAD_WEIGHTS: dict[str, tuple[Edit, str]] = {
    "missing": (
        lambda w: w.pop("model.layers.1.self_attn.k_proj.weight"),
        r"missing: model.layers.1.self_attn.k_proj.weight \(32, 64\)",
    ),
    "unexpected": (
        _set("model.layers.0.self_attn.q_proj.bias", np.zeros(64, np.float32)),
        r"unexpected: model.layers.0.self_attn.q_proj.bias \(64,\)",
    ),
    "wrong shape": (
        _set("model.layers.0.mlp.down_proj.weight", np.zeros((64, 64), np.float32)),
        r"down_proj.weight: expected shape \(64, 96\), got \(64, 64\)",
    ),
    "a matrix for a vector": (
        _set("model.norm.weight", np.zeros((64, 1), np.float32)),
        r"model.norm.weight: expected shape \(64,\), got \(64, 1\)",
    ),
    "an odd dtype": (_set("model.norm.weight", np.ones(64)), "model.norm.weight: expected F32"),
    "not finite": (_with_nan, "layers.1.mlp.up_proj.weight: expected finite weights, got 2 NaN"),
}


@pytest.mark.parametrize("case", BAD_WEIGHTS)
def test_bad_tensors_are_named(case: str, tmp_path: Path) -> None:
    edit, message = BAD_WEIGHTS[case]
    weights: dict[str, Any] = dict(WEIGHTS)
    edit(weights)
    source = write_hugging_face(tmp_path / "in", MODEL, weights)
    with pytest.raises(WeightsError, match=message):
        convert_weight(source, "q0f32", tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


def test_every_bad_tensor_is_listed_at_once(tmp_path: Path) -> None:
    gone = [name for name in WEIGHTS if "layers.1." in name]
    kept = {name: w for name, w in WEIGHTS.items() if name not in gone}
    source = write_gguf(tmp_path / "in.gguf", MODEL, kept)
    with pytest.raises(WeightsError) as caught:
        convert_weight(source, "q0f32", tmp_path / "out")
    for name in gone:
        assert f"missing: {name}" in str(caught.value)


def test_unknown_quantization_lists_the_known(gguf_file: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'q4f16_1'; expected one of q0f32, q4f32_1"):
        convert_weight(gguf_file, "q4f16_1", tmp_path / "out")


def test_rows_that_cannot_be_grouped_are_refused(tmp_path: Path) -> None:
    model = Tiny(intermediate=80)
    source = write_hugging_face(tmp_path / "in", model, model.weights())
    with pytest.raises(ConfigError, match=r"down_proj.weight: q4f32_1 needs .* got 80; use q0f32"):
        convert_weight(source, "q4f32_1", tmp_path / "out")
    convert_weight(source, "q0f32", tmp_path / "out")


def test_no_checkpoint_at_all(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"expected a \.gguf file or a Hugging Face directory"):
        convert_weight(tmp_path / "nothing", "q0f32", tmp_path / "out")


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"context_window_size": 1024}, "at most the model's own 512 tokens, got 1024"),
        ({"context_window_size": 64, "prefill_chunk_size": 128}, "at most context_window_size 64"),
        ({"prefill_chunk_size": -1}, "greater than or equal to 1, got -1"),
        ({"conv_template": "alpaca"}, "unknown conversation template 'alpaca'"),
        ({"conv_template": "llama-3"}, "needs the token <|begin_of_text|>"),
    ],
)
def test_bad_choices_are_refused(
    limits: dict[str, Any], message: str, gguf_file: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError) as caught:
        convert_weight(gguf_file, "q0f32", tmp_path / "out", **limits)
    assert message in str(caught.value)
    assert list(tmp_path.iterdir()) == []


# Damage anywhere in the file: a clear refusal and nothing left, or a whole model; never a crash.
@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_damaged_files_never_crash(gguf_file: Path, tmp_path: Path, data: st.DataObject) -> None:
    content = bytearray(gguf_file.read_bytes())
    header_bytes = content.index(b"output_norm.weight") + 64
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, header_bytes))] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del content[data.draw(st.integers(0, len(content))) :]
    source = tmp_path / "damaged.gguf"
    source.write_bytes(content)
    output = tmp_path / "out"
    shutil.rmtree(output, ignore_errors=True)
    try:
        convert_weight(source, "q0f32", output)
    except ShadowAttnError:
        assert [p.name for p in tmp_path.iterdir()] == ["damaged.gguf"]
    else:
        open_model_directory(output)
