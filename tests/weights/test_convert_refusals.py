"""What a conversion refuses: tensors that are not the model's, choices that don't fit it, and files
damaged anywhere."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shadowattn_tvm.errors import ConfigError, ShadowAttnError, WeightsError
from shadowattn_tvm.weights import convert_weight, open_model_directory

from .tiny import Tiny, write_gguf, write_hugging_face

MODEL = Tiny()
WEIGHTS = MODEL.weights()

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
    with pytest.raises(ConfigError, match=r"'q3f16_1'; expected one of q0f32, q4f32_1, q0f16, "):
        convert_weight(gguf_file, "q3f16_1", tmp_path / "out")


def test_rows_that_cannot_be_grouped_are_refused(tmp_path: Path) -> None:
    model = Tiny(intermediate=80)
    source = write_hugging_face(tmp_path / "in", model, model.weights())
    with pytest.raises(ConfigError, match=r"down_proj.weight: q4f32_1 needs .* got 80; use q0f32"):
        convert_weight(source, "q4f32_1", tmp_path / "out")
    with pytest.raises(ConfigError, match=r"down_proj.weight: q4f16_1 needs .* got 80; use q0f16"):
        convert_weight(source, "q4f16_1", tmp_path / "out")
    convert_weight(source, "q0f32", tmp_path / "out")


@pytest.mark.parametrize("quantization", ["q0f16", "q4f16_1"])
def test_weights_beyond_float16_are_named(quantization: str, tmp_path: Path) -> None:
    weights = {name: np.array(values) for name, values in WEIGHTS.items()}
    weights["model.layers.1.mlp.down_proj.weight"][3, 5] = -7e4
    source = write_hugging_face(tmp_path / "in", MODEL, weights)
    with pytest.raises(WeightsError, match=r"layers.1.mlp.down_proj.*float16's 65504.*70000"):
        convert_weight(source, quantization, tmp_path / "out")
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


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
