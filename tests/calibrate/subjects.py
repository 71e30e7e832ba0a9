"""The tiny model on windows of random tokens, as a calibration runs it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from shadowattn_tvm.calibrate import ReferenceModel, Subject
from shadowattn_tvm.config import LlamaConfig
from shadowattn_tvm.corpora import Window

from .tiny_model import tiny_config, tiny_parameters, write_tiny_model

WINDOW_TOKENS, CHUNK_TOKENS = 56, 16


def tiny_subject(folder: Path, config: LlamaConfig | None = None, **changes: np.ndarray) -> Subject:
    """Three windows; `changes` are parameters by name, with dots as double underscores."""
    config = tiny_config() if config is None else config
    parameters = tiny_parameters(config)
    parameters.update({name.replace("__", "."): array for name, array in changes.items()})
    ids = np.random.default_rng(11).integers(0, 256, (3, WINDOW_TOKENS))
    return Subject(
        directory=write_tiny_model(folder, config),
        documents=(),
        model=ReferenceModel(config, parameters),
        windows=tuple(Window("random", "0" * 64, 0, row) for row in ids),
        window_tokens=WINDOW_TOKENS,
        prefill_chunk_tokens=CHUNK_TOKENS,
    )
