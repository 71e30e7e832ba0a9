from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shadowattn_tvm.calibrate import Corpus, built_in_corpus, read_corpus, sample_windows
from shadowattn_tvm.errors import ConfigError


class CharacterEncoder:
    """One token a character, so that a token's id says where in the text it stood."""

    def encode(self, text: str) -> list[int]:
        return [ord(character) for character in text]


def numbered_corpus(num_tokens: int) -> Corpus:
    """A text whose i-th token has the id i."""
    return Corpus("numbers", "".join(map(chr, range(num_tokens))))


def test_the_built_in_corpus_is_the_same_text_every_time() -> None:
    first, second = built_in_corpus(), built_in_corpus()
    assert first.sha256 == second.sha256
    assert "CPython" in first.name
    # Room for the default windows of any tokenizer that packs up to 8 characters in a token.
    assert len(first.text) > 8 * 8 * 1024


def test_a_file_is_named_and_hashed_by_content(tmp_path: Path) -> None:
    file = tmp_path / "essays.txt"
    file.write_bytes("Grüße\n".encode())
    corpus = read_corpus(file)
    assert corpus == Corpus("essays.txt", "Grüße\n")
    assert corpus.sha256 != Corpus("essays.txt", "Grusse\n").sha256


def test_unreadable_files_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.txt.*No such file"):
        read_corpus(tmp_path / "absent.txt")
    with pytest.raises(ConfigError, match="directory"):
        read_corpus(tmp_path)
    latin = tmp_path / "latin.txt"
    latin.write_bytes("Grüße".encode("latin-1"))
    with pytest.raises(ConfigError, match="expected UTF-8 text, got byte 0xfc at offset 2"):
        read_corpus(latin)
    huge = tmp_path / "huge.txt"
    with huge.open("wb") as file:
        file.truncate(1 << 40)  # sparse: takes no space
    with pytest.raises(ConfigError, match=r"expected at most .* got 1099511627776"):
        read_corpus(huge)


@given(
    num_tokens=st.integers(1, 3000),
    window_tokens=st.integers(1, 200),
    max_windows=st.integers(1, 40),
    prefix=st.lists(st.integers(10_000, 10_009), max_size=5),
)
@settings(deadline=None, max_examples=100)
def test_windows_are_runs_of_the_text_that_never_overlap(
    num_tokens: int, window_tokens: int, max_windows: int, prefix: list[int]
) -> None:
    text_tokens = window_tokens - len(prefix)
    corpus = numbered_corpus(num_tokens)

    def sample() -> np.ndarray:
        return sample_windows(
            corpus,
            CharacterEncoder(),
            window_tokens=window_tokens,
            max_windows=max_windows,
            prefix_ids=prefix,
        ).token_ids

    if text_tokens < 1 or num_tokens < text_tokens:
        with pytest.raises(ConfigError, match="got"):
            sample()
        return
    windows = sample()
    assert windows.shape == (min(max_windows, num_tokens // text_tokens), window_tokens)
    np.testing.assert_array_equal(windows[:, : len(prefix)], [prefix] * len(windows))
    body = windows[:, len(prefix) :]
    assert (np.diff(body, axis=1) == 1).all()
    assert (np.diff(body[:, 0]) >= text_tokens).all()
    assert body.min() >= 0
    assert body.max() < num_tokens


def test_windows_spread_over_the_whole_text() -> None:
    windows = sample_windows(
        numbered_corpus(1000), CharacterEncoder(), window_tokens=10, max_windows=4
    )
    assert windows.token_ids[:, 0].tolist() == [0, 250, 500, 750]
    assert (windows.num_windows, windows.window_tokens) == (4, 10)
    assert windows.corpus_sha256 == numbered_corpus(1000).sha256


def test_too_short_a_corpus_says_how_many_tokens_it_has() -> None:
    with pytest.raises(ConfigError, match=r"numbers: expected at least 100 tokens.*got 99"):
        sample_windows(numbered_corpus(99), CharacterEncoder(), window_tokens=100, max_windows=1)
    with pytest.raises(ConfigError, match="at least 1 calibration window, got 0"):
        sample_windows(numbered_corpus(99), CharacterEncoder(), window_tokens=10, max_windows=0)
