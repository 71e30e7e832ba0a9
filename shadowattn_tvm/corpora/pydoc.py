"""The built-in corpus: CPython's own `help()` topics, present wherever Python is.

Prose, tables, grammar and code. The texts differ between Python versions, so whoever records them
records their hashes.
"""

from __future__ import annotations

import platform

from .document import Document

_MIN_CHARACTERS = 2000
"""Shorter topics are a paragraph or a reference to another topic."""

_MAX_REPEATED_LINES = 0.9
"""Several topics are chapters of longer ones, with other footnotes."""

_MIN_LINE_CHARACTERS = 20
"""Shorter lines (rules, brackets, a keyword) stand everywhere."""


def pydoc_documents() -> tuple[Document, ...]:
    """One document a topic, sorted by name, without the short ones and those that a longer topic
    repeats: else two windows could be the same text."""
    from pydoc_data.topics import topics  # half a megabyte of text: loaded only when asked for

    version = f"{platform.python_implementation()} {platform.python_version()}"
    lines = {
        name: _long_lines(text) for name, text in topics.items() if len(text) >= _MIN_CHARACTERS
    }
    kept: dict[str, frozenset[str]] = {}
    for name in sorted(lines, key=lambda name: (-len(topics[name]), name)):
        own = lines[name]
        if all(len(own & longer) <= _MAX_REPEATED_LINES * len(own) for longer in kept.values()):
            kept[name] = own
    return tuple(Document(f"pydoc/{name} ({version})", topics[name]) for name in sorted(kept))


def _long_lines(text: str) -> frozenset[str]:
    stripped = (line.strip() for line in text.splitlines())
    return frozenset(line for line in stripped if len(line) >= _MIN_LINE_CHARACTERS)
