"""The text that calibration reads: where it comes from, and the windows of tokens taken from it.

The built-in corpus is the text of CPython's own `help()` topics: prose, tables, grammar and code,
present wherever Python is. It differs between Python versions, so a plan records its hash.
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError

_MAX_CORPUS_BYTES = 32 << 20
"""Calibration uses some 100 kB of text; tokenizing more than this takes longer than the rest."""


class TextEncoder(Protocol):
    """The part of a tokenizer that is needed here (`runtime.tokenizer.ModelTokenizer` has it)."""

    def encode(self, text: str) -> list[int]: ...


@dataclass(frozen=True)
class Corpus:
    """A text and the name a plan's provenance gives it."""

    name: str
    text: str

    @property
    def sha256(self) -> str:
        """SHA-256 (hex) of the text as UTF-8."""
        return hashlib.sha256(self.text.encode("utf-8")).hexdigest()


@dataclass(frozen=True)
class Windows:
    """What calibration runs the model on, and where it comes from.

    Attributes
    ----------
    corpus, corpus_sha256 : name and hash (hex) of the text.
    token_ids : `[num_windows, window_tokens]` int64, each row a run of consecutive tokens of the
        text, after the prefix every conversation of the model starts with (if it has one).
    """

    corpus: str
    corpus_sha256: str
    token_ids: NDArray[np.int64]

    @property
    def num_windows(self) -> int:
        return int(self.token_ids.shape[0])

    @property
    def window_tokens(self) -> int:
        return int(self.token_ids.shape[1])


def built_in_corpus() -> Corpus:
    """The text of CPython's help topics, in alphabetical order."""
    from pydoc_data.topics import topics  # half a megabyte of text: loaded only when asked for

    version = f"{platform.python_implementation()} {platform.python_version()}"
    text = "\n\n".join(topics[name] for name in sorted(topics))
    return Corpus(f"pydoc_data.topics ({version})", text)


def read_corpus(path: Path) -> Corpus:
    """A corpus from any UTF-8 text file. Raises `ConfigError` when it can't be one."""
    try:
        num_bytes = path.stat().st_size
        if num_bytes > _MAX_CORPUS_BYTES:
            raise ConfigError(
                f"corpus {path}: expected at most {_MAX_CORPUS_BYTES} bytes of text, got "
                f"{num_bytes}; calibration uses a small part of it, so give it a sample"
            )
        return Corpus(path.name, path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"corpus {path}: expected UTF-8 text, got byte 0x{error.object[error.start]:02x} at "
            f"offset {error.start}; convert it to UTF-8 first"
        ) from None
    except OSError as error:
        raise ConfigError(
            f"can't read the corpus {path}: {error.strerror}; expected a UTF-8 text file"
        ) from None


def sample_windows(
    corpus: Corpus,
    tokenizer: TextEncoder,
    *,
    window_tokens: int,
    max_windows: int,
    prefix_ids: Sequence[int] = (),
) -> Windows:
    """Take up to `max_windows` windows, evenly spread over the corpus and not overlapping.

    A shorter corpus gives fewer windows. The same corpus, tokenizer and sizes give the same
    windows. Raises `ConfigError` for sizes that can't be, and for a corpus too short for one
    window.
    """
    if max_windows < 1:
        raise ConfigError(f"expected at least 1 calibration window, got {max_windows}")
    text_tokens = window_tokens - len(prefix_ids)
    if text_tokens < 1:
        raise ConfigError(
            f"expected windows longer than the model's prefix of {len(prefix_ids)} tokens, "
            f"got {window_tokens}"
        )
    ids = np.asarray(tokenizer.encode(corpus.text), np.int64)
    if ids.size < text_tokens:
        raise ConfigError(
            f"corpus {corpus.name}: expected at least {text_tokens} tokens, enough for one "
            f"window, got {ids.size}; give it more text or ask for shorter windows"
        )
    num_windows = min(max_windows, ids.size // text_tokens)
    # Strides of at least one window, the last window inside the corpus.
    starts = [index * ids.size // num_windows for index in range(num_windows)]
    prefix = np.asarray(prefix_ids, np.int64)
    rows = [np.concatenate([prefix, ids[start : start + text_tokens]]) for start in starts]
    return Windows(corpus.name, corpus.sha256, np.stack(rows))
