"""One text and the name it is reported by."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property


@dataclass(frozen=True)
class Document:
    """A text: the unit that windows never cross and that reports name.

    Attributes
    ----------
    name : where it is from, short: a file's name, a topic, an article.
    text : all of it.
    source : what the user named to get it; sources take turns when windows are sampled.
    """

    name: str
    text: str
    source: str = field(default="", compare=False)

    @cached_property
    def sha256(self) -> str:
        """SHA-256 (hex) of the text as UTF-8."""
        return hashlib.sha256(self.text.encode("utf-8")).hexdigest()
