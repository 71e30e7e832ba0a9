"""What a compiled library says about itself, read without running it.

A library for a phone can't be loaded here, and one from elsewhere shouldn't be before it is known
to be what was asked for. `_metadata` returns a constant string: it lies whole in the file, in
shared objects and in (uncompressed) archives of objects alike.
"""

from __future__ import annotations

import json
import mmap
from pathlib import Path

from ..config.documents import validated
from ..errors import LibraryError
from ..plan import Plan
from .library_metadata import LibraryMetadata
from .plan_check import require_plan

_FIRST_KEY = b'{"model_type": "'
"""How MLC's compiler, and ours, begin the object."""


def read_metadata(path: Path) -> LibraryMetadata:
    """The metadata of an MLC model library, for whatever machine it is. Raises `LibraryError`."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            start = data.find(_FIRST_KEY)
            end = data.find(b"\0", start) if start >= 0 else -1
            text = data[start : end if end >= 0 else len(data)] if start >= 0 else b""
    except (OSError, ValueError) as error:  # ValueError: an empty file can't be mapped
        raise LibraryError(f"can't read the library {path}: {error}") from None
    try:
        described, _ = json.JSONDecoder().raw_decode(text.decode("utf-8", errors="replace"))
    except ValueError:
        raise LibraryError(
            f"{path}: expected a model library made by mlc_llm compile, found no metadata in it"
        ) from None
    return validated(LibraryMetadata, described, f"{path}: metadata", LibraryError)


def require_library(path: Path, plan: Plan | None) -> None:
    """Raise `LibraryError` unless the library at `path` was compiled with `plan` (None: without
    one)."""
    require_plan(read_metadata(path), plan, path)
