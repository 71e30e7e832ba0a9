"""Text files as documents, plain or gzipped, read with a bound on their size."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

from ..errors import ConfigError
from .document import Document

MAX_DOCUMENT_BYTES = 32 << 20
"""Tokenizing more than this takes longer than anything that is done with the tokens."""

_MAX_FILES = 10_000
"""More is a mistyped path, not a corpus."""


def file_document(path: Path, name: str) -> Document:
    """The document in a UTF-8 text file, unpacked if its name ends in `.gz`. Raises `ConfigError`
    when it can't be read, is too large, isn't UTF-8 or has no text."""
    try:
        text = _read_bytes(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"corpus {path}: expected UTF-8 text, got byte 0x{error.object[error.start]:02x} at "
            f"offset {error.start}; convert it to UTF-8 first"
        ) from None
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise ConfigError(f"corpus {path}: expected a whole gzip file, got {error}") from None
    except OSError as error:
        raise ConfigError(
            f"can't read the corpus {path}: {error.strerror}; expected a UTF-8 text file"
        ) from None
    if not text.strip():
        raise ConfigError(f"corpus {path}: expected text, got an empty file")
    return Document(name, text)


def directory_documents(folder: Path) -> tuple[Document, ...]:
    """Every file below `folder`, sorted by path, named by its path from there; hidden ones are
    left out. Raises `ConfigError` as `file_document` does, and when there is none."""
    paths = sorted(
        path
        for path in folder.rglob("*")
        if path.is_file() and not any(part.startswith(".") for part in _below(path, folder))
    )
    if not paths:
        raise ConfigError(f"corpus {folder}: expected text files in the directory, found none")
    if len(paths) > _MAX_FILES:
        raise ConfigError(f"corpus {folder}: expected at most {_MAX_FILES} files, got {len(paths)}")
    return tuple(file_document(path, "/".join(_below(path, folder))) for path in paths)


def _below(path: Path, folder: Path) -> tuple[str, ...]:
    return path.relative_to(folder).parts


def _read_bytes(path: Path) -> bytes:
    if path.suffix == ".gz":
        with gzip.open(path) as file:
            content = file.read(MAX_DOCUMENT_BYTES + 1)
        size_bytes = len(content)
    else:
        size_bytes = path.stat().st_size
        content = path.read_bytes() if size_bytes <= MAX_DOCUMENT_BYTES else b""
    if size_bytes > MAX_DOCUMENT_BYTES:
        raise ConfigError(
            f"corpus {path}: expected at most {MAX_DOCUMENT_BYTES} bytes of text, got "
            f"{size_bytes if path.suffix != '.gz' else 'more'}; give it a sample"
        )
    return content
