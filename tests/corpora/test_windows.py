from __future__ import annotations

import itertools
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shadowattn_tvm.corpora import Document, Window, sample_windows
from shadowattn_tvm.errors import ConfigError


class CharacterEncoder:
    """One token a character, so that a token's id says where in the text it stood."""

    def encode(self, text: str) -> list[int]:
        return [ord(character) for character in text]


def numbered(num_tokens: int, name: str = "numbers") -> Document:
    """A text whose i-th token has the id i."""
    return Document(name, "".join(map(chr, range(num_tokens))))


def sample(documents: list[Document], **sizes: int) -> tuple[Window, ...]:
    return sample_windows(documents, CharacterEncoder(), **sizes)


@given(
    lengths=st.lists(st.integers(0, 1500), min_size=1, max_size=4),
    window_tokens=st.integers(1, 200),
    max_windows=st.integers(1, 40),
    prefix=st.lists(st.integers(10_000, 10_009), max_size=5),
)
@settings(deadline=None, max_examples=100)
def test_windows_are_runs_of_their_documents_that_never_overlap(
    lengths: list[int], window_tokens: int, max_windows: int, prefix: list[int]
) -> None:
    documents = [numbered(length, str(i)) for i, length in enumerate(lengths)]
    text_tokens = window_tokens - len(prefix)

    def draw() -> tuple[Window, ...]:
        return sample_windows(
            documents,
            CharacterEncoder(),
            window_tokens=window_tokens,
            max_windows=max_windows,
            prefix_ids=prefix,
        )

    if text_tokens < 1 or max(lengths) < text_tokens:
        with pytest.raises(ConfigError, match="got"):
            draw()
        return
    windows = draw()
    room = sum(length // text_tokens for length in lengths)
    assert len(windows) == min(max_windows, room)
    for window in windows:
        want = np.arange(window.start_token, window.start_token + text_tokens)
        np.testing.assert_array_equal(window.token_ids, [*prefix, *want])
        assert window.start_token + text_tokens <= lengths[int(window.document)]
    for name in {window.document for window in windows}:
        starts = [window.start_token for window in windows if window.document == name]
        assert all(b - a >= text_tokens for a, b in itertools.pairwise(starts))
    # Turns: nobody has two more than another who still has room.
    counts = Counter(window.document for window in windows)
    for i, length in enumerate(lengths):
        if counts[str(i)] < length // text_tokens:
            assert max(counts.values()) <= counts[str(i)] + 1


def test_windows_spread_over_a_document() -> None:
    windows = sample([numbered(1000)], window_tokens=10, max_windows=4)
    assert [window.start_token for window in windows] == [0, 250, 500, 750]
    assert {window.document_sha256 for window in windows} == {numbered(1000).sha256}


def test_documents_take_turns_and_short_ones_are_left_out() -> None:
    documents = [numbered(40, "a"), numbered(9, "short"), numbered(20, "b")]
    windows = sample(documents, window_tokens=10, max_windows=5)
    got = [(window.document, window.start_token) for window in windows]
    assert got == [("a", 0), ("b", 0), ("a", 13), ("b", 10), ("a", 26)]


def test_few_windows_come_from_evenly_spaced_documents() -> None:
    documents = [numbered(20 + i, str(i)) for i in range(9)]
    windows = sample(documents, window_tokens=10, max_windows=3)
    assert [window.document for window in windows] == ["0", "3", "6"]


def test_sources_take_turns_however_many_documents_they_have() -> None:
    documents = [Document(str(i), numbered(20 + i).text, "many") for i in range(4)]
    documents.append(Document("one", numbered(90).text, "one"))
    windows = sample(documents, window_tokens=10, max_windows=5)
    assert [window.document for window in windows] == ["0", "one", "1", "one", "2"]
    with pytest.raises(ConfigError, match="at least 4 documents, got 4 windows from 3"):
        sample(documents, window_tokens=10, max_windows=4, min_documents=4)


def test_what_does_not_fit_is_refused_with_numbers() -> None:
    documents = [numbered(99, "a"), numbered(50, "b")]
    with pytest.raises(ConfigError, match=r"at least 100 tokens.* got 2 shorter ones"):
        sample(documents, window_tokens=100, max_windows=1)
    with pytest.raises(ConfigError, match=r"at least 1 windows.* got 0"):
        sample(documents, window_tokens=10, max_windows=0)
    with pytest.raises(ConfigError, match=r"at least 2 documents of 60 tokens.* got 1 of 2"):
        sample(documents, window_tokens=60, max_windows=4, min_documents=2)
    with pytest.raises(ConfigError, match=r"at least 2 windows, one from each.* got 1"):
        sample(documents, window_tokens=10, max_windows=1, min_documents=2)
