"""Tiny checkpoints, one of each kind, made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from .tiny import Tiny, write_gguf, write_hugging_face


@pytest.fixture(scope="session")
def gguf_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = Tiny()
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf", model, model.weights())


@pytest.fixture(scope="session")
def hugging_face(tmp_path_factory: pytest.TempPathFactory) -> Path:
    model = Tiny()
    return write_hugging_face(tmp_path_factory.mktemp("hf") / "tiny", model, model.weights())
