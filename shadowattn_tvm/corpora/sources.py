"""What `--corpus` names: a built-in corpus, a text file, or a directory of text files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ..errors import ConfigError
from .document import Document
from .pydoc import pydoc_documents
from .text_files import directory_documents, file_document
from .wikitext import wikitext2_test_documents, wikitext2_train_documents

BUILT_IN: Mapping[str, Callable[[], tuple[Document, ...]]] = {
    "pydoc": pydoc_documents,
    "wikitext2": wikitext2_test_documents,
    "wikitext2-train": wikitext2_train_documents,
}
"""Corpora with a name of their own; `./pydoc` is a file of that name."""


def read_documents(sources: Sequence[str]) -> tuple[Document, ...]:
    """The documents of every source, in order, each text once.

    A source is a name in `BUILT_IN`, a UTF-8 text file (`.gz` allowed), or a directory, of which
    every file below is read, sorted by path. Raises `ConfigError` naming the source when it can't
    be read or holds no text, and when there is no source at all.
    """
    if not sources:
        raise ConfigError(
            f"expected at least one corpus: {', '.join(BUILT_IN)}, a text file or a directory"
        )
    by_hash: dict[str, Document] = {}
    for source in sources:
        for document in _read_source(source):
            by_hash.setdefault(document.sha256, replace(document, source=source))
    return tuple(by_hash.values())


def _read_source(source: str) -> tuple[Document, ...]:
    if source in BUILT_IN:
        return BUILT_IN[source]()
    path = Path(source)
    if path.is_dir():
        return directory_documents(path)
    if not path.exists():
        raise ConfigError(
            f"no corpus {source!r}: expected one of {', '.join(BUILT_IN)}, a UTF-8 text file "
            "(.gz allowed) or a directory of them"
        )
    return (file_document(path, path.name),)
