"""Tokens in, text out, piece by piece, never half a character.

A token may end in the middle of a UTF-8 sequence. Decoders show what is incomplete as U+FFFD at
the end of the text: that end is held back until later tokens complete it, or until it is certain
that none will.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"
_MAX_UNFINISHED = 3
"""Bytes of an unfinished UTF-8 sequence, so also the most tokens that can share one and the most
replacement characters that can stand for one. Whatever exceeds it is broken for good and is
passed on as the decoder shows it."""


class StreamingDetokenizer:
    """The pieces and the final `flush()` concatenate to the decoded text of all tokens.

    Parameters
    ----------
    decode : token ids to text, special tokens left out. It may treat the beginning of a text
        differently (SentencePiece drops a leading space), so every token is decoded together
        with the one that bore text before it.
    """

    def __init__(self, decode: Callable[[Sequence[int]], str]) -> None:
        self._decode = decode
        self._window: list[int] = []  # tokens given out (left context), then those held back
        self._context_tokens = 0  # how many of the window's tokens are left context
        self._emitted_chars = 0  # how much of the window's text was given out

    def push(self, token_id: int) -> str:
        """The text that became complete with this token; often empty."""
        self._window.append(token_id)
        text = self._decode(self._window)
        complete_chars = self._complete_chars(text)
        piece = text[self._emitted_chars : complete_chars]
        if complete_chars < len(text):
            self._emitted_chars = max(self._emitted_chars, complete_chars)
        elif piece:
            self._window = self._window[self._context_tokens :]
            self._context_tokens = len(self._window)
            self._emitted_chars = len(self._decode(self._window))
        elif len(text) == self._emitted_chars:
            self._window.pop()  # a token without text, such as a special token
        return piece

    def flush(self) -> str:
        """What is still held back, now that no token follows; the detokenizer starts afresh."""
        piece = self._decode(self._window)[self._emitted_chars :]
        self._window, self._context_tokens, self._emitted_chars = [], 0, 0
        return piece

    def _complete_chars(self, text: str) -> int:
        """Length of `text` without the end that later tokens may still change."""
        unfinished = len(text) - len(text.rstrip(_REPLACEMENT))
        if len(self._window) - self._context_tokens > _MAX_UNFINISHED:
            unfinished = min(unfinished, _MAX_UNFINISHED)
        return len(text) - unfinished
