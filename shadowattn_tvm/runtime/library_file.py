"""What a compiled library says about itself, read without running it.

A library for a phone can't be loaded here, and one from elsewhere shouldn't be before it is known
to be what was asked for. `_metadata` returns a constant string, which lies whole in a shared object
and in one of the objects of an archive.
"""

from __future__ import annotations

import json
import mmap
import tarfile
from collections.abc import Iterator
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
        text = next(filter(None, map(_find, _contents(path))), b"")
    except (OSError, ValueError, tarfile.TarError) as error:  # ValueError: an empty file
        raise LibraryError(f"can't read the library {path}: {error}") from None
    try:
        described, _ = json.JSONDecoder().raw_decode(text.decode("utf-8", errors="replace"))
    except ValueError:
        raise LibraryError(
            f"{path}: expected a model library made by mlc_llm compile, found no metadata in it"
        ) from None
    return validated(LibraryMetadata, described, f"{path}: metadata", LibraryError)


def _contents(path: Path) -> Iterator[bytes | mmap.mmap]:
    """The bytes of a library, or of every object in an archive."""
    if tarfile.is_tarfile(path):
        with tarfile.open(path) as archive:
            for member in archive:
                file = archive.extractfile(member)
                if file is not None:
                    yield file.read()
        return
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        yield data


def _find(data: bytes | mmap.mmap) -> bytes:
    """The constant string that the metadata is; empty if there is none."""
    start = data.find(_FIRST_KEY)
    if start < 0:
        return b""
    end = data.find(b"\0", start)
    return bytes(data[start : end if end >= 0 else len(data)])


def require_library(path: Path, plan: Plan | None) -> None:
    """Raise `LibraryError` unless the library at `path` was compiled with `plan` (None: without
    one)."""
    require_plan(read_metadata(path), plan, path)
