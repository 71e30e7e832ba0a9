"""A model by either of its directories."""

from __future__ import annotations

from pathlib import Path

import pytest

from shadowattn_tvm.config.paths import CACHE_VARIABLE
from shadowattn_tvm.errors import WeightsError
from shadowattn_tvm.weights import ModelDirectory, model_fingerprint, open_any_directory
from tests.calibrate.tiny_model import tiny_config, write_tiny_model
from tests.mlc.hugging_face_directory import write_hugging_face


def test_a_model_directory_is_itself(tiny_directory: ModelDirectory) -> None:
    with open_any_directory(tiny_directory.path) as directory:
        assert directory.path == tiny_directory.path


def test_a_checkpoint_is_converted_for_a_while(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    (tmp_path / "ours").mkdir()
    ours = write_tiny_model(tmp_path / "ours", tiny_config(vocab_size=320))
    checkpoint = write_hugging_face(ours, tmp_path / "tiny", end_token="</s>")
    with open_any_directory(checkpoint) as directory:
        assert model_fingerprint(directory) == model_fingerprint(ours)
    assert not any((tmp_path / "cache").iterdir())


def test_what_is_neither(tmp_path: Path) -> None:
    with (
        pytest.raises(WeightsError, match="is not a model directory"),
        open_any_directory(tmp_path),
    ):
        pass
