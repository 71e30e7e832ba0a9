"""Who runs a whole model: our libraries, dense and with a plan, torch and llama.cpp."""

from __future__ import annotations

import importlib.util
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass
from math import prod
from pathlib import Path

from ..compiler import Phase, compile_library
from ..contenders import ContenderKind, ContenderSettings
from ..errors import ConfigError
from ..plan import Plan
from ..weights import ModelDirectory
from ..weights.gguf_file import open_gguf
from .model_document import ModelContenderName, SkippedContender

_OPTIONAL: tuple[ModelContenderName, ...] = ("shadow", "torch", "llama_cpp")
"""All but the dense library, which they are held against."""


@dataclass(frozen=True)
class ModelContender:
    """One of them, to be started for a context.

    Attributes
    ----------
    name : in the rows.
    weights : the format of its weights.
    kind, file : see `ContenderSettings`.
    held_to_dense : whether it must agree with the dense library to be timed; false where its
        weights were rounded in another way, so that it is another model.
    """

    name: ModelContenderName
    weights: str
    kind: ContenderKind
    file: Path | None
    held_to_dense: bool = True

    def settings(
        self, directory: ModelDirectory, *, threads: int, context_tokens: int, chunk_tokens: int
    ) -> ContenderSettings:
        """What its process is told."""
        return ContenderSettings(
            kind=self.kind,
            model=str(directory.path.absolute()),
            file=None if self.file is None else str(self.file.absolute()),
            threads=threads,
            context_tokens=context_tokens,
            prefill_chunk_tokens=chunk_tokens,
        )


def model_contenders(
    directory: ModelDirectory,
    plan: Plan,
    *,
    gguf: Path | None = None,
    without: Collection[str] = (),
    chunk_tokens: int | None = None,
    on_phase: Callable[[Phase], None] = lambda phase: None,
) -> tuple[list[ModelContender], list[SkippedContender]]:
    """Those that can run here, the dense library first, and those that can't, with the reason.
    The libraries are compiled if they aren't in the cache; a chunk longer than the model's needs
    libraries of its own.

    Raises `ConfigError` for a name in `without` that can't be left out, `WeightsError` for a GGUF
    file that can't be read, and like `compile_library`.
    """
    for name in without:
        if name not in _OPTIONAL:
            raise ConfigError(f"--without: expected some of {', '.join(_OPTIONAL)}, got {name!r}")
    limit = directory.architecture.prefill_chunk_size
    overrides = f"prefill_chunk_size={chunk_tokens}" if (chunk_tokens or 0) > limit else ""
    own = directory.quantization
    found: list[ModelContender] = []
    skipped: list[SkippedContender] = []

    def skip(name: ModelContenderName, reason: str) -> None:
        skipped.append(SkippedContender(contender=name, reason=reason))

    def compiled(name: ModelContenderName, variant: Plan | None) -> None:
        library = compile_library(directory, variant, overrides=overrides, on_phase=on_phase).path
        found.append(ModelContender(name, own, "compiled", library))

    compiled("dense", None)
    if "shadow" in without:
        skip("shadow", "not asked for")
    else:
        compiled("shadow", plan)
    if "torch" in without:
        skip("torch", "not asked for")
    elif not (_installed("torch") and _installed("transformers")):
        skip("torch", "not installed: pip install 'shadowattn-tvm[calibrate]'")
    else:
        weights = own if own == "q0f32" else f"{own}, made float32"
        found.append(ModelContender("torch", weights, "hugging_face", None))
    if "llama_cpp" in without:
        skip("llama_cpp", "not asked for")
    elif gguf is None:
        skip("llama_cpp", "no file given: --gguf takes the one that the weights were made from")
    elif not _installed("llama_cpp"):
        skip("llama_cpp", "not installed: pip install 'shadowattn-tvm[llama]'")
    else:
        # Weights that convert_weight rounded anew are no longer those of the file.
        kept = directory.quantization in ("q0f32", "q0f16")
        weights = gguf_weights(gguf)
        found.append(ModelContender("llama_cpp", weights, "llama_cpp", gguf, held_to_dense=kept))
    return found, skipped


def gguf_weights(path: Path) -> str:
    """The format that most of a file's weights are in. Raises `WeightsError`."""
    elements: Counter[str] = Counter()
    for tensor in open_gguf(path).tensors.values():
        elements[tensor.type.name] += prod(tensor.shape)
    return elements.most_common(1)[0][0]


def _installed(module: str) -> bool:
    return importlib.util.find_spec(module) is not None
