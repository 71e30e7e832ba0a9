"""What a checkpoint is, whatever its file format: the model's shape and its tensors by row.

Tensors go by the Llama family's Hugging Face names; where MLC-LLM stores several as one, `SOURCES`
says which.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..config.architecture import LlamaConfig
from ..errors import WeightsError
from .layout import float_shapes
from .model_directory import listed


@dataclass(frozen=True)
class GenerationDefaults:
    """What a checkpoint says of generation: token ids, its chat template (Jinja), sampling
    settings by MLC's names."""

    bos_token_id: int | None
    eos_token_id: int | tuple[int, ...] | None
    pad_token_id: int | None
    chat_template: str | None
    sampling: Mapping[str, Any]


class Checkpoint(Protocol):
    """An opened checkpoint of a Llama-family model."""

    @property
    def architecture(self) -> LlamaConfig: ...

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Shape of every tensor in the file, by Hugging Face name."""

    @property
    def generation(self) -> GenerationDefaults: ...

    def read_rows(self, name: str, start: int, stop: int) -> NDArray[np.float32]:
        """Rows `start` to `stop` of a tensor (elements of a vector). For the query and key
        projections both must be multiples of the head's width. Raises `WeightsError`."""

    def write_tokenizer(self, folder: Path) -> None:
        """Put the tokenizer's files into `folder`. Raises `WeightsError` or `ConfigError`."""


_FUSED = {
    "qkv_proj": ("q_proj", "k_proj", "v_proj"),
    "c_attn": ("q_proj", "k_proj", "v_proj"),
    "gate_up_proj": ("gate_proj", "up_proj"),
}
"""MLC's linear layers that are several of the checkpoint's, rows of one after rows of the other."""

_COMPUTED_BUFFERS = "rotary_emb.inv_freq"
"""Older checkpoints store what the model computes itself."""


def sources(name: str) -> tuple[str, ...]:
    """The checkpoint's tensors whose rows, one after another, are MLC's parameter `name`."""
    for fused, parts in _FUSED.items():
        if f".{fused}." in name:
            return tuple(name.replace(fused, part) for part in parts)
    return (name,)


def expected_shapes(architecture: LlamaConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor the checkpoint of such a model must hold."""
    a = architecture
    rows = {
        "q_proj": a.q_size,
        "k_proj": a.kv_size,
        "v_proj": a.kv_size,
        "gate_proj": a.intermediate_size,
        "up_proj": a.intermediate_size,
    }
    shapes = {}
    for name, shape in float_shapes(architecture).items():
        for source in sources(name):
            layer = source.split(".")[-2]
            shapes[source] = (rows.get(layer, shape[0]), *shape[1:])
    return shapes


def check_tensors(checkpoint: Checkpoint, where: str) -> None:
    """Both ways: every tensor of the model is there with its shape, and none besides.
    Raises one `WeightsError` that lists them all."""
    expected = expected_shapes(checkpoint.architecture)
    got = checkpoint.shapes
    problems = [f"missing: {name} {shape}" for name, shape in expected.items() if name not in got]
    problems += [
        f"unexpected: {name} {shape}"
        for name, shape in got.items()
        if name not in expected and not _is_redundant(name, checkpoint.architecture)
    ]
    problems += [
        f"{name}: expected shape {shape}, got {got[name]}"
        for name, shape in expected.items()
        if name in got and got[name] != shape
    ]
    if problems:
        raise WeightsError(
            listed(f"{where}: {len(problems)} tensors are not those of this model", problems)
        )


def _is_redundant(name: str, architecture: LlamaConfig) -> bool:
    tied_twice = name == "lm_head.weight" and architecture.tie_word_embeddings
    return tied_twice or name.endswith(_COMPUTED_BUFFERS)
