"""A model directory: the converted weights, their description and the tokenizer, opened and
checked as one thing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ..config.architecture import LlamaConfig
from ..config.chat_config import CHAT_CONFIG_FILE, ChatConfig, Quantization
from ..errors import WeightsError
from .layout import parameter_layout
from .tensor_cache import TENSOR_CACHE_FILE, TensorCache, open_tensor_cache, read_tensors

_MAX_NAMES_SHOWN = 20


@dataclass(frozen=True)
class ModelDirectory:
    """An opened model directory.

    Attributes
    ----------
    path : the directory.
    chat_config : its `mlc-chat-config.json`.
    tensor_cache : its checked weights index.
    """

    path: Path
    chat_config: ChatConfig
    tensor_cache: TensorCache

    @property
    def architecture(self) -> LlamaConfig:
        """The model and its compiled limits."""
        return self.chat_config.architecture

    @property
    def quantization(self) -> Quantization:
        return self.chat_config.quantization

    @property
    def weight_hash(self) -> str:
        """SHA-256 (hex) that names the stored weights' content."""
        return self.tensor_cache.content_hash


def is_model_directory(path: Path) -> bool:
    """Whether `path` looks like a model directory, ours or MLC's, whole or damaged."""
    return (path / CHAT_CONFIG_FILE).is_file()


def open_model_directory(path: Path) -> ModelDirectory:
    """Open a directory that `convert_weight` (or MLC-LLM) wrote, without reading the weights.

    Checks the description, that every parameter of the model is there with its shape and dtype and
    none besides, that every shard has its size, and that the tokenizer files exist.

    Raises `WeightsError` (no such directory, incomplete or damaged weights) or `ConfigError` (a
    description we can't use).
    """
    if not path.is_dir():
        raise WeightsError(
            f"no model directory at {path}; make one with "
            f"`shadowattn convert_weight SOURCE --quantization q0f32 -o {path}`"
        )
    for name in (CHAT_CONFIG_FILE, TENSOR_CACHE_FILE):
        if not (path / name).is_file():
            raise WeightsError(
                f"{path} is not a model directory: expected {name} in it; convert a checkpoint "
                "with `shadowattn convert_weight`"
            )
    chat_config = ChatConfig.read(path / CHAT_CONFIG_FILE)
    cache = open_tensor_cache(path)
    _check_parameters(cache, chat_config)
    for name in chat_config.tokenizer_files:
        if not (path / name).is_file():
            raise WeightsError(f"{path}: expected the tokenizer file {name}; convert again")
    return ModelDirectory(path, chat_config, cache)


def iter_parameters(
    directory: ModelDirectory, *, verify: bool = False
) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield every stored parameter as (name, read-only array), in the order of the files; arrays
    are views of the mapped shards where the format allows. With `verify`, the shards' checksums
    are checked first. Raises `WeightsError`."""
    return read_tensors(directory.tensor_cache, verify=verify)


def load_parameters(directory: ModelDirectory, *, verify: bool = False) -> dict[str, NDArray[Any]]:
    """Every stored parameter by name; see `iter_parameters`."""
    return dict(iter_parameters(directory, verify=verify))


def _check_parameters(cache: TensorCache, chat_config: ChatConfig) -> None:
    """Both ways: nothing missing, nothing unexpected, shapes and dtypes as the model's."""
    layout = parameter_layout(chat_config.architecture, chat_config.quantization)
    stored = cache.tensors()
    problems = [f"missing: {name}" for name in layout if name not in stored]
    problems += [f"unexpected: {name}" for name in stored if name not in layout]
    problems += [
        f"{name}: expected {info.dtype} {info.shape}, got {stored[name].dtype} {stored[name].shape}"
        for name, info in layout.items()
        if name in stored and (info.shape, info.dtype) != (stored[name].shape, stored[name].dtype)
    ]
    if problems:
        raise WeightsError(
            listed(f"{cache.folder}: the weights don't fit mlc-chat-config.json", problems)
        )


def listed(headline: str, problems: list[str]) -> str:
    """One message for many problems, a line each."""
    lines = [headline, *(f"  {problem}" for problem in problems[:_MAX_NAMES_SHOWN])]
    if len(problems) > _MAX_NAMES_SHOWN:
        lines.append(f"  and {len(problems) - _MAX_NAMES_SHOWN} more")
    return "\n".join(lines)
