"""Windows of tokens, spread evenly over documents and over each document."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError
from .document import Document


class TextEncoder(Protocol):
    """The part of a tokenizer that is needed here (`runtime.tokenizer.ModelTokenizer` has it)."""

    def encode(self, text: str) -> list[int]: ...


@dataclass(frozen=True)
class Window:
    """A run of consecutive tokens of one document.

    Attributes
    ----------
    document, document_sha256 : its name and hash (hex).
    start_token : where the run begins, in the document's own tokens.
    token_ids : `[tokens]` int64; the prefix every conversation of the model starts with (if it has
        one) comes first, the run follows.
    """

    document: str
    document_sha256: str
    start_token: int
    token_ids: NDArray[np.int64]


def sample_windows(
    documents: Sequence[Document],
    tokenizer: TextEncoder,
    *,
    window_tokens: int,
    max_windows: int,
    prefix_ids: Sequence[int] = (),
    min_documents: int = 1,
) -> tuple[Window, ...]:
    """Up to `max_windows` windows of `window_tokens` tokens each, the prefix included.

    Documents long enough take turns until there are enough windows or no more room; where there
    are fewer windows than documents, the documents used are evenly spaced among them. Within a
    document windows are evenly spaced and don't overlap. In the result, too, documents take turns.
    The same arguments give the same windows.

    Raises `ConfigError` for sizes that can't be, when no document is long enough, and when fewer
    than `min_documents` are (or fewer windows than that are asked for).
    """
    if max_windows < max(min_documents, 1):
        raise ConfigError(
            f"expected at least {max(min_documents, 1)} windows, one from each of as many "
            f"documents, got {max_windows}"
        )
    text_tokens = window_tokens - len(prefix_ids)
    if text_tokens < 1:
        raise ConfigError(
            f"expected windows longer than the model's prefix of {len(prefix_ids)} tokens, "
            f"got {window_tokens}"
        )
    long_enough = _tokenize_long(documents, tokenizer, text_tokens)
    if len(long_enough) < min_documents:
        raise ConfigError(
            f"expected at least {min_documents} documents of {text_tokens} tokens or more, got "
            f"{len(long_enough)} of {len(documents)}; add longer texts or ask for shorter windows"
        )
    if max_windows < len(long_enough):
        step = len(long_enough) / max_windows
        long_enough = [long_enough[int(turn * step)] for turn in range(max_windows)]
    shares = _fill_in_turns([len(ids) // text_tokens for _, ids in long_enough], max_windows)
    prefix = np.asarray(prefix_ids, np.int64)
    windows = []
    for turn in range(max(shares)):
        for (document, ids), share in zip(long_enough, shares, strict=True):
            if turn < share:
                # Strides of at least one window, the last window inside the document.
                start = turn * ids.size // share
                run = ids[start : start + text_tokens]
                windows.append(
                    Window(document.name, document.sha256, start, np.concatenate([prefix, run]))
                )
    return tuple(windows)


def _tokenize_long(
    documents: Sequence[Document], tokenizer: TextEncoder, text_tokens: int
) -> list[tuple[Document, NDArray[np.int64]]]:
    """The documents of at least `text_tokens` tokens, with their tokens. Raises `ConfigError` when
    there is none."""
    found: list[tuple[Document, NDArray[np.int64]]] = []
    longest = 0
    for document in documents:
        # A token is at least a byte: most documents that are too short need not be tokenized.
        if len(document.text.encode("utf-8")) >= text_tokens:
            ids = np.asarray(tokenizer.encode(document.text), np.int64)
            longest = max(longest, int(ids.size))
            if ids.size >= text_tokens:
                found.append((document, ids))
    if not found:
        raise ConfigError(
            f"expected a document of at least {text_tokens} tokens, enough for one window, got "
            f"{len(documents)} shorter ones (at most {longest} tokens); give longer texts or ask "
            "for shorter windows"
        )
    return found


def _fill_in_turns(room: Sequence[int], wanted: int) -> list[int]:
    """How many of `wanted` each gets when everyone with room left takes one at a time."""
    shares = [0] * len(room)
    while wanted > 0 and any(share < space for share, space in zip(shares, room, strict=True)):
        for index, space in enumerate(room):
            if shares[index] < space and wanted > 0:
                shares[index] += 1
                wanted -= 1
    return shares
