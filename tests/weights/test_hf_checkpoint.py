"""Hugging Face directories: what is read, and every way a directory can be damaged or hostile."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from shadowattn_tvm.errors import ConfigError, ShadowAttnError, WeightsError
from shadowattn_tvm.weights import convert_weight
from shadowattn_tvm.weights.hf_checkpoint import HuggingFaceCheckpoint

from .tiny import CHAT_TEMPLATE, Tiny, write_hugging_face

MODEL = Tiny()
WEIGHTS = MODEL.weights()
INDEX = "model.safetensors.index.json"


def edit_json(path: Path, **changes: Any) -> None:
    content = json.loads(path.read_text()) if path.is_file() else {}
    path.write_text(json.dumps({**content, **changes}))


def test_rows_and_shapes(tmp_path: Path) -> None:
    checkpoint = HuggingFaceCheckpoint(write_hugging_face(tmp_path, MODEL, WEIGHTS))
    assert checkpoint.shapes == MODEL.shapes()
    name = "model.layers.1.self_attn.q_proj.weight"
    np.testing.assert_array_equal(checkpoint.read_rows(name, 16, 48), WEIGHTS[name][16:48])


@pytest.mark.parametrize("place", ["jinja", "string", "list", "nowhere"])
def test_the_chat_template_is_found(place: str, tmp_path: Path) -> None:
    folder = write_hugging_face(tmp_path, MODEL, WEIGHTS)
    named = [{"name": "tool", "template": "x"}, {"name": "default", "template": CHAT_TEMPLATE}]
    config = {"jinja": {}, "string": {"chat_template": CHAT_TEMPLATE}, "nowhere": {}}
    content = config.get(place, {"chat_template": named})
    (folder / "tokenizer_config.json").write_text(json.dumps(content))
    if place == "jinja":
        (folder / "chat_template.jinja").write_text(CHAT_TEMPLATE)
    template = HuggingFaceCheckpoint(folder).generation.chat_template
    assert template == (None if place == "nowhere" else CHAT_TEMPLATE)
    directory = convert_weight(folder, "q0f32", tmp_path / "out")
    name = "LM" if place == "nowhere" else "chatml"
    assert directory.chat_config.conv_template.name == name
    assert ("chat_template.jinja" in directory.chat_config.tokenizer_files) == (place == "jinja")


def _no_config(folder: Path) -> None:
    (folder / "config.json").unlink()


def _not_utf8(folder: Path) -> None:
    (folder / "config.json").write_bytes(b'{"model_type": "ll\xe4ma"}')


def _not_json(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "llama",')


def _a_list(folder: Path) -> None:
    (folder / "config.json").write_text("[1, 2]")


def _nested_deeply(folder: Path) -> None:
    (folder / "config.json").write_text("[" * 100_000 + "]" * 100_000)


def _no_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()


def _pickles_only(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def _two_files_without_index(folder: Path) -> None:
    (folder / "more.safetensors").write_bytes((folder / "model.safetensors").read_bytes())


def _header(length: int, text: bytes) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        content = struct.pack("<Q", length) + text
        (folder / "model.safetensors").write_bytes(content)

    return damage


def _truncated(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-10])


def _offsets_beyond(folder: Path) -> None:
    text = json.dumps({"w": {"dtype": "F32", "shape": [4], "data_offsets": [0, 1 << 40]}}).encode()
    _header(len(text), text)(folder)


def _integers(folder: Path) -> None:
    weights = {**WEIGHTS, "model.norm.weight": np.ones(64, np.int32)}
    save_file(weights, folder / "model.safetensors")


def _no_tokenizer(folder: Path) -> None:
    (folder / "tokenizer.json").unlink()


def _tokenizer_not_utf8(folder: Path) -> None:
    (folder / "tokenizer.json").write_bytes(b"\xff\xfe\x00")


def _generation_config_broken(folder: Path) -> None:
    (folder / "generation_config.json").write_text("{")


BAD_DIRECTORIES: dict[str, tuple[Callable[[Path], None], type[ShadowAttnError], str]] = {
    "no config": (_no_config, ConfigError, "can't read"),
    "config not UTF-8": (_not_utf8, ConfigError, "config.json: expected UTF-8"),
    "config not JSON": (_not_json, ConfigError, "config.json: expected JSON"),
    "config a list": (_a_list, ConfigError, "expected a JSON object, got a list"),
    "config nested": (_nested_deeply, ConfigError, "expected JSON"),
    "no weights": (_no_weights, WeightsError, "expected *.safetensors files"),
    "pickles only": (_pickles_only, WeightsError, "pickled weights (.bin, .pth) are not read"),
    "no index": (_two_files_without_index, WeightsError, f"2 safetensors files, but no {INDEX}"),
    "truncated": (_truncated, WeightsError, "model.safetensors"),
    "an absurd header": (_header(1 << 60, b"{}"), WeightsError, "model.safetensors"),
    "a header not JSON": (_header(4, b"abcd"), WeightsError, "model.safetensors"),
    "an empty file": (_header(0, b""), WeightsError, "model.safetensors"),
    "offsets beyond": (_offsets_beyond, WeightsError, "model.safetensors"),
    "integer weights": (_integers, WeightsError, "expected F32, F16, BF16, got I32"),
    "no tokenizer": (_no_tokenizer, WeightsError, "expected a tokenizer.json"),
    "tokenizer not UTF-8": (_tokenizer_not_utf8, WeightsError, "expected UTF-8"),
    "generation config": (_generation_config_broken, ConfigError, "generation_config.json"),
}


@pytest.mark.parametrize("case", BAD_DIRECTORIES)
def test_bad_directories_are_refused(case: str, tmp_path: Path) -> None:
    damage, error, message = BAD_DIRECTORIES[case]
    folder = write_hugging_face(tmp_path / "in", MODEL, WEIGHTS)
    damage(folder)
    with pytest.raises(error) as caught:
        convert_weight(folder, "q0f32", tmp_path / "out")
    assert message in str(caught.value)
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


BAD_INDICES: dict[str, tuple[Any, str]] = {
    "outside": ({"model.norm.weight": "../secret.safetensors"}, "got '../secret.safetensors'"),
    "absolute": ({"model.norm.weight": "/etc/passwd"}, "got '/etc/passwd'"),
    "the parent": ({"model.norm.weight": ".."}, "got '..'"),
    "backslashes": ({"model.norm.weight": "..\\x"}, "expected the name of a file"),
    "a number": ({"model.norm.weight": 7}, "expected the name of a file in the folder, got 7"),
    "a list": ([1], "weight_map: expected an object"),
    "empty": ({}, "weight_map: expected an object"),
    "a missing file": ({"model.norm.weight": "gone.safetensors"}, "can't read"),
    "a missing tensor": (
        {"nowhere.weight": "model-00001-of-00002.safetensors"},
        "got none of nowhere.weight",
    ),
}


@pytest.mark.parametrize("case", BAD_INDICES)
def test_bad_indices_are_refused(case: str, tmp_path: Path) -> None:
    weight_map, message = BAD_INDICES[case]
    folder = write_hugging_face(tmp_path / "in", MODEL, WEIGHTS, num_shards=2)
    save_file(WEIGHTS, tmp_path / "secret.safetensors")
    edit_json(folder / INDEX, weight_map=weight_map)
    with pytest.raises(WeightsError) as caught:
        convert_weight(folder, "q0f32", tmp_path / "out")
    assert message in str(caught.value)


def test_a_tensor_in_two_shards_is_refused(tmp_path: Path) -> None:
    folder = write_hugging_face(tmp_path / "in", MODEL, WEIGHTS, num_shards=2)
    first, second = sorted(folder.glob("*.safetensors"))
    second.write_bytes(first.read_bytes())
    content = json.loads((folder / INDEX).read_text())["weight_map"]
    kept = {name: file for name, file in content.items() if file == first.name}
    edit_json(folder / INDEX, weight_map={**kept, next(iter(kept)): second.name})
    with pytest.raises(WeightsError, match="is in another file as well"):
        convert_weight(folder, "q0f32", tmp_path / "out")


STRANGE_VALUES = (None, True, 0, -1, 2**80, 3.5, math.nan, "", "x", [1], {"a": 1}, [{}])


@pytest.mark.parametrize("file", ["config.json", "generation_config.json", "tokenizer_config.json"])
def test_any_value_anywhere_is_no_crash(file: str, tmp_path: Path) -> None:
    folder = write_hugging_face(tmp_path / "in", MODEL, WEIGHTS)
    path = folder / file
    original = path.read_text() if path.is_file() else "{}"
    keys = {*json.loads(original), "temperature", "chat_template", "rope_scaling", "layer_types"}
    keys |= {"rope_parameters", "sliding_window", "max_sequence_length", "quantization_config"}
    for key in sorted(keys):
        for value in STRANGE_VALUES:
            path.write_text(json.dumps({**json.loads(original), key: value}))
            with suppress(ShadowAttnError):
                convert_weight(folder, "q0f32", tmp_path / "out")
