"""A compiled model library: loaded, described, and checked against the weights it is to run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..config.documents import validated
from ..errors import LibraryError
from ..weights import ModelDirectory
from .library_metadata import LibraryMetadata
from .machine import Machine

_REQUIRED_FUNCTIONS = ("embed", "prefill", "decode", "create_tir_paged_kv_cache")


class ModelLibrary:
    """A shared library with MLC's functions, on the machine it was loaded on.

    Attributes
    ----------
    path : the file.
    metadata : its own description.
    """

    def __init__(self, path: Path, machine: Machine) -> None:
        """Load the library. Raises `LibraryError` if it is not a model library for the machine."""
        self.path = path
        if not path.is_file():
            raise LibraryError(
                f"no model library at {path}; compile one with `shadowattn compile MODEL_DIR -o "
                f"{path}`"
            )
        try:
            self._module = machine.load(path)
            description = json.loads(self._module["_metadata"]())
        except Exception as error:  # the loader's errors are of many kinds, none of them ours
            reason = str(error).strip().splitlines()
            raise LibraryError(
                f"{path}: expected a model library for the machine it is to run on, got "
                f"{reason[-1] if reason else type(error).__name__}; compile it again with the "
                "--device that is meant"
            ) from None
        missing = [n for n in _REQUIRED_FUNCTIONS if not machine.has(self._module, n)]
        if missing:
            raise LibraryError(
                f"{path}: expected a model library with the functions "
                f"{', '.join(_REQUIRED_FUNCTIONS)}; it lacks {', '.join(missing)}"
            )
        self.metadata = validated(LibraryMetadata, description, f"{path}: metadata", LibraryError)

    def function(self, name: str) -> Callable[..., Any]:
        """One of the library's functions. Raises `LibraryError` if it lacks it."""
        if not self._module.implements_function(name):
            raise LibraryError(
                f"{self.path}: the library has no function {name!r}, which this takes"
            )
        function: Callable[..., Any] = self._module[name]
        return function

    def require_fit(self, directory: ModelDirectory) -> None:
        """Raise `LibraryError`, naming both, unless the library takes exactly the directory's
        parameters and, where it says so, was compiled for these very weights."""
        stored = directory.tensor_cache.tensors()
        expected = {p.name: p for p in self.metadata.params}
        problems = [f"{name}: the library lacks it" for name in stored if name not in expected]
        for name, parameter in expected.items():
            wanted = f"{parameter.dtype} {list(parameter.shape)}"
            record = stored.get(name)
            got = "nothing" if record is None else f"{record.dtype} {list(record.shape)}"
            if record is None or not parameter.takes(record.shape, record.dtype):
                problems.append(f"{name}: the library takes {wanted}, the weights have {got}")
        built_for = self.metadata.weight_hash
        if not problems and built_for not in (None, directory.weight_hash):
            problems = [f"weight hash: expected {built_for}, got {directory.weight_hash}"]
        if problems:
            raise LibraryError(
                f"the library {self.path} ({self.metadata.quantization}) was not compiled for the "
                f"weights in {directory.path} ({directory.quantization}); compile it again. "
                f"Differences: {len(problems)}, the first: {problems[0]}"
            )
