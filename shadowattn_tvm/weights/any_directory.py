"""A model, whichever of its two directories is at hand."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..config.paths import cache_dir
from .convert import convert_weight
from .model_directory import ModelDirectory, is_model_directory, open_model_directory

_HUGGING_FACE_CONFIG = "config.json"


@contextmanager
def open_any_directory(path: Path) -> Iterator[ModelDirectory]:
    """Yield the model directory at `path`, or the Hugging Face directory there as one: converted
    to q0f32, for as long as it is open, beside the cache's other things.

    Raises like `open_model_directory` and `convert_weight`.
    """
    if is_model_directory(path) or not (path / _HUGGING_FACE_CONFIG).is_file():
        yield open_model_directory(path)
        return
    cache_dir().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="converted-", dir=cache_dir()) as folder:
        yield convert_weight(path, "q0f32", Path(folder) / path.resolve().name)
