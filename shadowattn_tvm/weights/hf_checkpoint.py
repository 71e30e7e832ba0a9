"""A Hugging Face directory as a checkpoint: config.json, safetensors (one file or sharded with an
index) and the tokenizer's files. Nothing in it is executed."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import ml_dtypes  # teaches NumPy bfloat16, which safetensors then reads
import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

from ..config.architecture import LlamaConfig
from ..config.chat_config import is_plain_file_name
from ..config.documents import read_json_object, read_text
from ..errors import WeightsError
from .checkpoint import GenerationDefaults

_INDEX_FILE = "model.safetensors.index.json"

_DTYPES = {"F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}
"""Element types that widen to float32 without loss."""

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "chat_template.jinja",
)
"""What is copied if it is there; only the first must be."""

_SAMPLING = ("temperature", "top_p", "repetition_penalty")


class HuggingFaceCheckpoint:
    """See `checkpoint.Checkpoint`. Opening checks the headers; tensors are read when asked for."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._config = read_json_object(folder / "config.json")
        self._architecture = LlamaConfig.from_hf_config(self._config, str(folder / "config.json"))
        self._slices = _open_tensors(folder)

    @property
    def architecture(self) -> LlamaConfig:
        return self._architecture

    @cached_property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        return {name: tuple(part.get_shape()) for name, part in self._slices.items()}

    @cached_property
    def generation(self) -> GenerationDefaults:
        """generation_config.json's word first, as in MLC-LLM, then config.json's."""
        path = self._folder / "generation_config.json"
        own = read_json_object(path) if path.is_file() else {}
        both = {**self._config, **{k: v for k, v in own.items() if v is not None}}
        eos = both.get("eos_token_id")
        return GenerationDefaults(
            bos_token_id=both.get("bos_token_id"),
            eos_token_id=tuple(eos) if isinstance(eos, list) else eos,
            pad_token_id=both.get("pad_token_id"),
            chat_template=self._chat_template(),
            sampling={name: both[name] for name in _SAMPLING if both.get(name) is not None},
        )

    def read_rows(self, name: str, start: int, stop: int) -> NDArray[np.float32]:
        try:
            return np.asarray(self._slices[name][start:stop], dtype=np.float32)
        except (SafetensorError, OSError) as error:
            raise WeightsError(f"{self._folder}: can't read the tensor {name}: {error}") from None

    def write_tokenizer(self, folder: Path) -> None:
        if not (self._folder / "tokenizer.json").is_file():
            raise WeightsError(
                f"{self._folder}: expected a tokenizer.json; save the tokenizer with "
                "`AutoTokenizer.from_pretrained(...).save_pretrained(...)` of transformers first"
            )
        for name in TOKENIZER_FILES:
            source = self._folder / name
            if source.is_file():
                shutil.copyfile(source, folder / name)

    def _chat_template(self) -> str | None:
        """From chat_template.jinja (transformers 5), else tokenizer_config.json."""
        separate = self._folder / "chat_template.jinja"
        if separate.is_file():
            return read_text(separate)
        path = self._folder / "tokenizer_config.json"
        template = read_json_object(path).get("chat_template") if path.is_file() else None
        if isinstance(template, list):  # several by name; the one called "default" is the chat's
            named = {t.get("name"): t.get("template") for t in template if isinstance(t, dict)}
            template = named.get("default")
        return template if isinstance(template, str) else None


def _open_tensors(folder: Path) -> dict[str, Any]:
    """A lazy slice of every tensor in the directory's safetensors files, by name."""
    slices: dict[str, Any] = {}
    for path, expected in _weight_files(folder).items():
        try:
            file: Any = safe_open(path, framework="np")  # its methods carry no types
            found = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, OSError) as error:
            raise WeightsError(f"can't read {path}: {error}") from None
        missing = sorted(expected - found.keys())
        if missing:
            raise WeightsError(
                f"{path}: expected the tensors {_INDEX_FILE} lists, got none of "
                f"{', '.join(missing[:5])}"
            )
        for name, part in found.items():
            if part.get_dtype() not in _DTYPES:
                raise WeightsError(
                    f"{path}: tensor {name}: expected {', '.join(_DTYPES)}, got {part.get_dtype()}"
                )
            if name in slices:
                raise WeightsError(f"{path}: tensor {name} is in another file as well")
            slices[name] = part
    return slices


def _weight_files(folder: Path) -> dict[Path, set[str]]:
    """Every weights file, with the tensors its index says it holds."""
    index = folder / _INDEX_FILE
    if index.is_file():
        weight_map = read_json_object(index, WeightsError).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise WeightsError(f"{index}: weight_map: expected an object of tensor names")
        files: dict[Path, set[str]] = {}
        for tensor, name in weight_map.items():
            if not isinstance(name, str) or not is_plain_file_name(name):
                raise WeightsError(
                    f"{index}: {tensor}: expected the name of a file in the folder, got {name!r}"
                )
            files.setdefault(folder / name, set()).add(tensor)
        return files
    single = sorted(folder.glob("*.safetensors"))
    if len(single) == 1:
        return {single[0]: set()}
    if single:
        raise WeightsError(f"{folder}: {len(single)} safetensors files, but no {_INDEX_FILE}")
    pickled = any(folder.glob("*.bin")) or any(folder.glob("*.pth"))
    advice = "; pickled weights (.bin, .pth) are not read: save them as safetensors"
    raise WeightsError(f"{folder}: expected *.safetensors files{advice if pickled else ''}")
