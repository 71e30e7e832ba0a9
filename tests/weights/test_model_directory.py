"""Model directories: what opens, what TVM and MLC-LLM wrote opens too, and every damage is named
before a weight is used."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from tvm.contrib import tvmjs

from shadowattn_tvm.config import QUANTIZATIONS
from shadowattn_tvm.errors import ConfigError, ShadowAttnError, WeightsError
from shadowattn_tvm.weights import (
    convert_weight,
    is_model_directory,
    iter_parameters,
    load_parameters,
    model_fingerprint,
    open_model_directory,
)

from .tiny import Tiny, write_hugging_face

MODEL = Tiny()
INDEX = "tensor-cache.json"
CHAT = "mlc-chat-config.json"


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    source = write_hugging_face(folder / "in", MODEL, MODEL.weights())
    return convert_weight(source, "q0f32", folder / "out").path


@pytest.fixture
def copied(converted: Path, tmp_path: Path) -> Path:
    return shutil.copytree(converted, tmp_path / "copy")


def test_parameters_are_mapped_views(converted: Path) -> None:
    directory = open_model_directory(converted)
    for name, values in iter_parameters(directory):
        assert not values.flags.owndata, name
        assert not values.flags.writeable, name
    assert is_model_directory(converted)


def test_reopening_gives_the_same_hash_and_other_weights_another(
    converted: Path, tmp_path: Path
) -> None:
    directory = open_model_directory(converted)
    assert directory.weight_hash == open_model_directory(converted).weight_hash
    source = write_hugging_face(tmp_path / "in", MODEL, MODEL.weights(seed=5))
    other = convert_weight(source, "q0f32", tmp_path / "out")
    assert other.weight_hash != directory.weight_hash
    assert model_fingerprint(other) != model_fingerprint(directory)


def test_what_tvm_writes_opens_and_rounds_to_bfloat16(copied: Path) -> None:
    """MLC-LLM stores float32 through TVM's own writer, as bfloat16."""
    ours = load_parameters(open_model_directory(copied))
    parameters = {name: np.array(values) for name, values in ours.items()}
    for path in copied.glob("params_shard_*"):
        path.unlink()
    tvmjs.dump_tensor_cache(parameters, str(copied), show_progress=False)
    theirs = open_model_directory(copied)
    for name, values in load_parameters(theirs, verify=True).items():
        assert values.dtype == np.float32
        np.testing.assert_allclose(values, parameters[name], rtol=2**-8, err_msg=name)
        assert (np.ascontiguousarray(values).view(np.uint32) & 0xFFFF == 0).all()


def test_the_fingerprint_outlives_quantization_and_mlcs_bfloat16(
    converted: Path, copied: Path, tmp_path: Path
) -> None:
    original = open_model_directory(converted)
    source = write_hugging_face(tmp_path / "in", MODEL, MODEL.weights())
    quantized = convert_weight(source, "q4f32_1", tmp_path / "q4", context_window_size=64)
    assert quantized.weight_hash != original.weight_hash
    assert model_fingerprint(quantized) == model_fingerprint(original)
    parameters = {name: np.array(values) for name, values in iter_parameters(original)}
    tvmjs.dump_tensor_cache(parameters, str(copied), show_progress=False)
    assert model_fingerprint(open_model_directory(copied)) == model_fingerprint(original)


def test_the_fingerprint_outlives_float16_where_checkpoints_are_in_half_the_bits(
    tmp_path: Path,
) -> None:
    """bfloat16's numbers, of which float16 lacks the smallest: all conversions read alike."""
    weights = {name: _as_bfloat16(values) for name, values in MODEL.weights().items()}
    weights["model.norm.weight"][:3] = [2.0**-14, _as_bfloat16(np.float32(1e-5)), 1e-30]
    source = write_hugging_face(tmp_path / "in", MODEL, weights)
    fingerprints = {
        model_fingerprint(convert_weight(source, quantization, tmp_path / quantization))
        for quantization in QUANTIZATIONS
    }
    assert len(fingerprints) == 1


def _as_bfloat16(values: Any) -> Any:
    return np.asarray(values).astype(ml_dtypes.bfloat16).astype(np.float32)


def test_keys_mlc_adds_are_passed_over(copied: Path) -> None:
    content = json.loads((copied / CHAT).read_text())
    content |= {"embedding_metadata": None, "some_future_key": {"a": 1}}
    content["model_config"]["some_future_key"] = 3
    content["conv_template"]["some_future_key"] = 3
    del content["active_vocab_size"]  # MLC's older versions don't write it
    (copied / CHAT).write_text(json.dumps(content))
    directory = open_model_directory(copied)
    assert directory.architecture == open_model_directory(copied).architecture
    assert directory.chat_config.active_vocab_size is None


def test_smaller_limits_at_run_time_are_allowed(copied: Path) -> None:
    content = json.loads((copied / CHAT).read_text())
    (copied / CHAT).write_text(json.dumps({**content, "context_window_size": 100}))
    directory = open_model_directory(copied)
    assert directory.chat_config.context_window_size == 100
    assert directory.architecture.context_window_size == 512


def edit(file: str, change: Callable[[Any], object]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        content = json.loads((folder / file).read_text())
        change(content)
        (folder / file).write_text(json.dumps(content))

    return damage


def first(content: Any) -> Any:
    return content["records"][0]["records"][0]


def _truncate(folder: Path) -> None:
    shard = folder / "params_shard_0.bin"
    shard.write_bytes(shard.read_bytes()[:-1])


def _outside(folder: Path) -> None:
    shutil.copy(folder / "params_shard_0.bin", folder.parent / "x.bin")
    edit(INDEX, lambda c: c["records"][0].update(dataPath="../x.bin"))(folder)


DAMAGES: dict[str, tuple[Callable[[Path], object], type[ShadowAttnError], str]] = {
    "no description": (lambda f: (f / CHAT).unlink(), WeightsError, f"expected {CHAT} in it"),
    "no index": (lambda f: (f / INDEX).unlink(), WeightsError, f"expected {INDEX} in it"),
    "no shard": (
        lambda f: (f / "params_shard_0.bin").unlink(),
        WeightsError,
        "can't read the shard",
    ),
    "truncated shard": (_truncate, WeightsError, "the file is truncated"),
    "no tokenizer": (
        lambda f: (f / "tokenizer.json").unlink(),
        WeightsError,
        "expected the tokenizer file tokenizer.json",
    ),
    "index not UTF-8": (lambda f: (f / INDEX).write_bytes(b"\xff"), WeightsError, "UTF-8"),
    "index not JSON": (lambda f: (f / INDEX).write_text("{"), WeightsError, "expected JSON"),
    "shard outside": (_outside, WeightsError, "name of a file in the folder, got '../x.bin'"),
    "no records": (
        edit(INDEX, lambda c: c.pop("records")),
        WeightsError,
        "records: Field required",
    ),
    "offset beyond": (
        edit(INDEX, lambda c: first(c).update(byteOffset=1 << 40)),
        WeightsError,
        "expected to end within the shard",
    ),
    "negative offset": (
        edit(INDEX, lambda c: first(c).update(byteOffset=-4)),
        WeightsError,
        "byteOffset: Input should be greater than or equal to 0, got -4",
    ),
    "size not shape": (
        edit(INDEX, lambda c: first(c).update(nbytes=8)),
        WeightsError,
        "expected 69632 bytes, got 8",
    ),
    "absurd shape": (
        edit(INDEX, lambda c: first(c).update(shape=[1 << 61, 1 << 61])),
        WeightsError,
        "bytes, got 69632",
    ),
    "unknown dtype": (
        edit(INDEX, lambda c: first(c).update(dtype="float8")),
        WeightsError,
        "dtype: Input should be 'float32', 'float16' or 'uint32'",
    ),
    "a tensor twice": (
        edit(INDEX, lambda c: c["records"][0]["records"].append(first(c))),
        WeightsError,
        "every tensor once, got twice: model.embed_tokens.weight",
    ),
    "a tensor renamed": (
        edit(INDEX, lambda c: first(c).update(name="x")),
        WeightsError,
        "missing: model.embed_tokens.weight\n  unexpected: x",
    ),
    "another shape": (
        edit(INDEX, lambda c: first(c).update(shape=[64, 272])),
        WeightsError,
        "expected float32 (272, 64), got float32 (64, 272)",
    ),
    "another quantization": (
        edit(CHAT, lambda c: c.update(quantization="q4f32_1")),
        WeightsError,
        "missing: model.embed_tokens.q_weight",
    ),
    "a quantization we lack": (
        edit(CHAT, lambda c: c.update(quantization="q3f16_0")),
        ConfigError,
        "quantization: Input should be 'q0f32', 'q4f32_1', 'q0f16' or 'q4f16_1', got 'q3f16_0'",
    ),
    "a model we don't run": (
        edit(CHAT, lambda c: c.update(model_type="gemma3")),
        ConfigError,
        "model_type: expected 'llama' or 'qwen2', got 'gemma3'",
    ),
    "sliding window": (
        edit(CHAT, lambda c: c.update(sliding_window_size=4096)),
        ConfigError,
        "no support for sliding-window attention, got 4096",
    ),
    "several devices": (
        edit(CHAT, lambda c: c["model_config"].update(tensor_parallel_shards=2)),
        ConfigError,
        "tensor_parallel_shards: expected 1",
    ),
    "a type that is almost right": (
        edit(CHAT, lambda c: c["model_config"].update(hidden_size="64")),
        ConfigError,
        "model_config.hidden_size: Input should be a valid integer, got '64'",
    ),
    "limits beyond the compiled": (
        edit(CHAT, lambda c: c.update(context_window_size=513)),
        ConfigError,
        "context_window_size: expected at most model_config's 512, got 513",
    ),
    "a tokenizer outside": (
        edit(CHAT, lambda c: c.update(tokenizer_files=["../tokenizer.json"])),
        ConfigError,
        "got '../tokenizer.json'",
    ),
    "no template": (
        edit(CHAT, lambda c: c.pop("conv_template")),
        ConfigError,
        "conv_template: Field required",
    ),
}


@pytest.mark.parametrize("case", DAMAGES)
def test_damage_is_named(case: str, copied: Path) -> None:
    damage, error, message = DAMAGES[case]
    open_model_directory(copied)
    damage(copied)
    with pytest.raises(error) as caught:
        open_model_directory(copied)
    assert message in str(caught.value)


def test_a_flipped_bit_is_found_when_asked(copied: Path) -> None:
    shard = copied / "params_shard_0.bin"
    content = bytearray(shard.read_bytes())
    content[1000] ^= 1
    shard.write_bytes(content)
    directory = open_model_directory(copied)
    load_parameters(directory)
    with pytest.raises(WeightsError, match="the file is damaged"):
        load_parameters(directory, verify=True)


def test_a_shard_that_vanishes_after_opening(copied: Path) -> None:
    directory = open_model_directory(copied)
    (copied / "params_shard_0.bin").unlink()
    for verify in (False, True):
        with pytest.raises(WeightsError, match="can't read"):
            load_parameters(directory, verify=verify)


def test_no_directory_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="make one with `shadowattn convert_weight"):
        open_model_directory(tmp_path / "nothing")
    assert not is_model_directory(tmp_path)
