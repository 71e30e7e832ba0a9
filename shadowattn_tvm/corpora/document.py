"""One text and the name it is reported by."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property


@dataclass(frozen=True)
class Document:
    """A text: the unit that windows never cross and that reports name.

    Attributes
    ----------
    name : where it is from, short: a file's name, a topic, an article.
    text : all of it.
    """

    name: str
    text: str

    @cached_property
    def sha256(self) -> str:
        """SHA-256 (hex) of the text as UTF-8."""
        return hashlib.sha256(self.text.encode("utf-8")).hexdigest()
