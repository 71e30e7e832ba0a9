"""A real library of a tiny model, compiled once for this suite."""

from __future__ import annotations

from pathlib import Path

import pytest

from shadowattn_tvm.compiler import compile_library
from shadowattn_tvm.weights import ModelDirectory
from tests.calibrate.tiny_model import tiny_config, write_tiny_model


@pytest.fixture(scope="session")
def tiny_directory(tmp_path_factory: pytest.TempPathFactory) -> ModelDirectory:
    """Random weights, 256 tokens of context, chunks of 16, a byte vocabulary."""
    return write_tiny_model(tmp_path_factory.mktemp("tiny"), tiny_config())


@pytest.fixture(scope="session")
def tiny_library(tiny_directory: ModelDirectory, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dense library of `tiny_directory` for this machine; its cache is the suite's own."""
    folder = tmp_path_factory.mktemp("library")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SHADOWATTN_CACHE", str(folder / "cache"))
        return compile_library(tiny_directory, None, output=folder / "tiny.so").path
