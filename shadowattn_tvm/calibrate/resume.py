"""What is already measured, on disk after every window, so that an interrupted run goes on.

One `.npz` file beside the plan. It belongs to one fingerprint, a hash of everything the
measurements depend on; under another fingerprint it counts for nothing and is overwritten.
"""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from ..config.atomic import write_atomically

Arrays = dict[str, NDArray[np.generic]]

_FINGERPRINT = "fingerprint"
_MAX_BYTES = 4 << 30


def fingerprint_of(facts: Mapping[str, Any]) -> str:
    """SHA-256 (hex) of facts that JSON can hold."""
    text = json.dumps(facts, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


class PartialResults:
    """Arrays by stage and window. With `path` None they are only kept in memory.

    Parameters
    ----------
    path : the file; it is read if it is there and has this fingerprint.
    fingerprint : hex, of everything the results depend on.
    """

    def __init__(self, path: Path | None, fingerprint: str) -> None:
        self._path = path
        self._fingerprint = fingerprint
        self._arrays: Arrays = {} if path is None else _read(path, fingerprint)

    @classmethod
    def in_memory(cls) -> Self:
        """Results that outlive nothing."""
        return cls(None, "")

    def get(self, stage: str, window: int) -> Arrays | None:
        """What was measured of a window in a stage, None if nothing was yet."""
        prefix = f"{stage}/{window}/"
        found = {
            name.removeprefix(prefix): array
            for name, array in self._arrays.items()
            if name.startswith(prefix)
        }
        return found or None

    def put(self, stage: str, window: int, arrays: Mapping[str, NDArray[np.generic]]) -> None:
        """Remember what was measured. Raises `OutputError` when the file can't be written."""
        self._arrays |= {f"{stage}/{window}/{name}": array for name, array in arrays.items()}
        if self._path is None:
            return
        mark = np.frombuffer(self._fingerprint.encode(), np.uint8)
        with write_atomically(self._path) as staged, staged.open("wb") as file:
            np.savez(file, allow_pickle=False, **{_FINGERPRINT: mark}, **self._arrays)

    def discard(self) -> None:
        """Remove the file: the plan is written."""
        if self._path is not None:
            self._path.unlink(missing_ok=True)


def _read(path: Path, fingerprint: str) -> Arrays:
    """The arrays of a file with this fingerprint; nothing if there is none or it is damaged."""
    try:
        if path.stat().st_size > _MAX_BYTES:
            return {}
        with np.load(path, allow_pickle=False) as file:
            if file[_FINGERPRINT].tobytes() != fingerprint.encode():
                return {}
            return {name: file[name] for name in file.files if name != _FINGERPRINT}
    except (OSError, KeyError, ValueError, EOFError, zipfile.BadZipFile):
        return {}
