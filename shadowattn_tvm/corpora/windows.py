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


_Tokenized = tuple[Document, NDArray[np.int64]]


@dataclass(frozen=True)
class Window:
    """A run of consecutive tokens of one document.

    Attributes
    ----------
    document, document_sha256 : its name and hash (hex).
    start_token : where the run begins, in the document's own tokens.
    token_ids : `[tokens]` int64; the prefix every conversation of the model starts with (if it has
        one) comes first, the run follows.
    prefix_tokens : of `token_ids`, how many are that prefix.
    """

    document: str
    document_sha256: str
    start_token: int
    token_ids: NDArray[np.int64]
    prefix_tokens: int = 0


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

    Sources take turns until there are enough windows or no more room, and within a source its
    documents that are long enough; where there are fewer windows than documents, the documents used
    are evenly spaced among them. Within a document windows are evenly spaced and don't overlap. In
    the result, too, sources and documents take turns. The same arguments give the same windows.

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
    sources: dict[str, list[_Tokenized]] = {}
    for document, ids in long_enough:
        sources.setdefault(document.source, []).append((document, ids))
    rooms = [sum(len(ids) // text_tokens for _, ids in found) for found in sources.values()]
    shares = _fill_in_turns(rooms, max_windows)
    prefix = np.asarray(prefix_ids, np.int64)
    by_source = [
        _windows_of_source(found, share, text_tokens, prefix)
        for found, share in zip(sources.values(), shares, strict=True)
    ]
    windows = tuple(_in_turns(by_source))
    num_documents = len({window.document_sha256 for window in windows})
    if num_documents < min_documents:
        raise ConfigError(
            f"expected windows from at least {min_documents} documents, got {max_windows} windows "
            f"from {num_documents}, as sources take turns; ask for more windows"
        )
    return windows


def _windows_of_source(
    found: Sequence[_Tokenized], wanted: int, text_tokens: int, prefix: NDArray[np.int64]
) -> list[Window]:
    if wanted < len(found):
        found = [found[turn * len(found) // wanted] for turn in range(wanted)]
    shares = _fill_in_turns([len(ids) // text_tokens for _, ids in found], wanted)
    by_document = []
    for (document, ids), share in zip(found, shares, strict=True):
        # Strides of at least one window, the last window inside the document.
        starts = [turn * ids.size // share for turn in range(share)]
        runs = [np.concatenate([prefix, ids[start : start + text_tokens]]) for start in starts]
        by_document.append(
            [
                Window(document.name, document.sha256, start, run, prefix.size)
                for start, run in zip(starts, runs, strict=True)
            ]
        )
    return _in_turns(by_document)


def _in_turns(lists: Sequence[Sequence[Window]]) -> list[Window]:
    """The first of each, then the second of each, and so on."""
    longest = max(map(len, lists), default=0)
    return [items[turn] for turn in range(longest) for items in lists if turn < len(items)]


def _tokenize_long(
    documents: Sequence[Document], tokenizer: TextEncoder, text_tokens: int
) -> list[_Tokenized]:
    """The documents of at least `text_tokens` tokens, with their tokens. Raises `ConfigError` when
    there is none."""
    found: list[_Tokenized] = []
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
