"""Streaming text: against decoding all tokens at once, byte-level and with byte fallback."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shadowattn_tvm.runtime.detokenize import StreamingDetokenizer
from tests.runtime.fakes import END, START, ByteTokenizer

decode = ByteTokenizer().decode


def stream(token_ids: Sequence[int], decoder=decode) -> list[str]:
    detokenizer = StreamingDetokenizer(decoder)
    pieces = [detokenizer.push(i) for i in token_ids]
    return [*pieces, detokenizer.flush()]


@settings(deadline=None, max_examples=300)
@given(
    st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\N{REPLACEMENT CHARACTER}"))
)
def test_valid_text_never_shows_a_replacement_character(text):
    tokens = text.encode("utf-8")
    pieces = stream(tokens)
    assert "".join(pieces) == text
    assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)
    assert pieces[-1] == ""


@settings(deadline=None, max_examples=300)
@given(st.lists(st.one_of(st.integers(0, 255), st.sampled_from([START, END]))))
def test_any_tokens_at_all_concatenate_to_their_decoded_text(tokens):
    assert "".join(stream(tokens)) == decode(tokens)


@settings(deadline=None, max_examples=200)
@given(st.text(min_size=1), st.data())
def test_tokens_may_split_characters_anywhere(text, data):
    """Tokens of several bytes, cut without regard to characters."""
    encoded = text.encode("utf-8")
    cuts = sorted(data.draw(st.sets(st.integers(1, max(1, len(encoded) - 1)))))
    bounds = [0, *(c for c in cuts if c < len(encoded)), len(encoded)]
    vocabulary = [encoded[a:b] for a, b in pairwise(bounds)]

    def decode_pieces(ids: Sequence[int]) -> str:
        return b"".join(vocabulary[i] for i in ids).decode("utf-8", errors="replace")

    assert "".join(stream(range(len(vocabulary)), decode_pieces)) == text


def test_a_character_appears_with_its_last_byte():
    assert stream("é€".encode()) == ["", "é", "", "", "€", ""]


def test_an_unfinished_end_is_shown_broken_only_when_flushed():
    pieces = stream("ab€".encode()[:-1])
    assert pieces == ["a", "b", "", "", "\N{REPLACEMENT CHARACTER}"]


def test_garbage_is_not_held_back_forever():
    pieces = stream(b"\xff" * 10)
    assert "".join(pieces[:-1]).count("\N{REPLACEMENT CHARACTER}") == 7


def test_special_tokens_add_nothing_and_break_nothing():
    assert stream([START, *"é".encode(), END, *b"x"]) == ["", "", "é", "", "x", ""]


def byte_fallback(ids: Sequence[int]) -> str:
    """A run of bytes that is not UTF-8 shows one replacement character per byte; a leading space
    is dropped. SentencePiece's rules."""
    words = {1000: " Hello", 1001: " world"}
    text, run = "", b""
    for token in [*ids, None]:
        if token is not None and token < 256:
            run += bytes([token])
            continue
        try:
            text += run.decode("utf-8")
        except UnicodeDecodeError:
            text += "\N{REPLACEMENT CHARACTER}" * len(run)
        run = b""
        text += words.get(token, "")
    return text.removeprefix(" ")


def test_spaces_between_words_survive_decoders_that_drop_a_leading_one():
    assert stream([1000, 1001, 1001], byte_fallback) == ["Hello", " world", " world", ""]


@pytest.mark.parametrize("text", ["你好", "🙂🙂", "a🙂é你"])
def test_byte_fallback_runs_appear_character_by_character(text):
    pieces = stream([1000, *text.encode(), 1001], byte_fallback)
    assert [p for p in pieces if p] == ["Hello", *text, " world"]


def test_a_flushed_detokenizer_starts_afresh():
    detokenizer = StreamingDetokenizer(decode)
    detokenizer.push("€".encode()[0])
    detokenizer.flush()
    assert detokenizer.push(ord("x")) == "x"
    assert detokenizer.flush() == ""
