"""When an answer ends, and text that is held back while it may still turn into a stop string."""

from __future__ import annotations

from dataclasses import dataclass, field

from ..errors import ConfigError


@dataclass(frozen=True)
class StopConditions:
    """What ends an answer. Raises `ConfigError` for values that can't.

    Attributes
    ----------
    token_ids : sampling one of them ends the answer; it adds no text.
    strings : the text ends just before the first of them.
    max_tokens : the most tokens to sample; None for as many as the context window holds.
    """

    token_ids: frozenset[int] = field(default_factory=frozenset)
    strings: tuple[str, ...] = ()
    max_tokens: int | None = None

    def __post_init__(self) -> None:
        if self.max_tokens is not None and self.max_tokens < 1:
            raise ConfigError(f"expected max_tokens to be at least 1, got {self.max_tokens}")
        if "" in self.strings:
            raise ConfigError("expected stop strings of at least one character, got an empty one")


class StopStringFilter:
    """Passes text through until a stop string appears; afterwards `found` is True.

    The end of the text is held back while it is the beginning of a stop string, so no part of
    one is ever given out.
    """

    def __init__(self, strings: tuple[str, ...]) -> None:
        self._strings = strings
        self._held = ""
        self.found = False

    def push(self, piece: str) -> str:
        """The text that is certainly not part of a stop string."""
        text = self._held + piece
        starts = [at for at in map(text.find, self._strings) if at >= 0]
        if starts:
            self.found, self._held = True, ""
            return text[: min(starts)]
        held_chars = max((self._partial_chars(text, s) for s in self._strings), default=0)
        passed, self._held = text[: len(text) - held_chars], text[len(text) - held_chars :]
        return passed

    def flush(self) -> str:
        """What is still held back, now that no text follows."""
        held, self._held = self._held, ""
        return held

    @staticmethod
    def _partial_chars(text: str, string: str) -> int:
        """Length of the longest end of `text` that `string` begins with."""
        longest = min(len(text), len(string) - 1)
        return next((n for n in range(longest, 0, -1) if text.endswith(string[:n])), 0)
