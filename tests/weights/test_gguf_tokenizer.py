"""Rebuilt tokenizers against plain BPE written from the definitions: how text is cut, which pair is
merged first, what falls back to bytes.

What can break it: the cut (digits, contractions, runs of spaces), special tokens inside the text,
multi-byte characters split over tokens, the order of merges, ties.
"""

from __future__ import annotations

import json
import unicodedata
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, pre_tokenizers

from shadowattn_tvm.weights.gguf_tokenizer import build_tokenizer

from .plain_bpe import CUTS, PlainBpe, byte_letters
from .tiny import MERGES, SPECIAL_TOKENS, Tiny, byte_level_vocabulary

TEXTS = (
    "The heathen in an attic ate 1234567 hens, didn't they?",
    "  leading   and trailing  \n\n\ttabs\r\nand newlines \n",
    "naïve café — “quotes” … 漢字かな 한국어 ελληνικά العربية 🦙🏽👩‍👩‍👧",
    "x=1;y2=23.5e-7 # 100% of A'S 'll '' \u00a0\u200b\ufeff",
    "",
    " ",
    "\x00\x01\x7f\u0085",
    "<|im_start|>user\nthe<|im_end|>the <|im_end|>",
    "half a token <|im_star and the rest",
)

texts = st.text(max_size=60) | st.lists(
    st.sampled_from([" ", "the", "an", "in", "'s", "12", "\n", "é", "Ω", "🦙", *SPECIAL_TOKENS])
).map("".join)


def tokenizer_for(cut: str) -> Tokenizer:
    content, _ = build_tokenizer({**Tiny().gguf_metadata(), "tokenizer.ggml.pre": cut}, "test")
    return Tokenizer.from_str(json.dumps(content))


def plain_for(cut: str) -> PlainBpe:
    ranks = {merge: rank for rank, merge in enumerate(MERGES)}
    whole_words = byte_level_vocabulary() if cut == "llama-bpe" else ()
    return PlainBpe(cut, ranks, SPECIAL_TOKENS, whole_words)


PAIRS = {cut: (tokenizer_for(cut), plain_for(cut)) for cut in CUTS}


def assert_same(cut: str, text: str) -> None:
    tokenizer, plain = PAIRS[cut]
    encoded = tokenizer.encode(text, add_special_tokens=False)
    assert encoded.tokens == plain.tokens(text)
    kept = unicodedata.normalize("NFC", text) if cut == "qwen2" else text
    assert tokenizer.decode(encoded.ids, skip_special_tokens=False) == kept


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("text", TEXTS)
def test_byte_level_tokens_are_the_definitions(cut: str, text: str) -> None:
    assert_same(cut, text)


@settings(max_examples=100, deadline=None)
@given(text=texts, cut=st.sampled_from(list(CUTS)))
def test_byte_level_tokens_of_any_text(cut: str, text: str) -> None:
    assert_same(cut, text)


def test_the_alphabet_is_gpt2s() -> None:
    assert set(byte_letters().values()) == set(pre_tokenizers.ByteLevel.alphabet())


def test_the_beginning_token_is_added_where_the_file_says() -> None:
    metadata = {**Tiny().gguf_metadata(), "tokenizer.ggml.add_bos_token": True}
    content, config = build_tokenizer(metadata, "test")
    tokenizer = Tokenizer.from_str(json.dumps(content))
    assert tokenizer.encode("the").tokens[0] == "<|im_start|>"
    assert tokenizer.encode("the", add_special_tokens=False).tokens[0] != "<|im_start|>"
    assert config["bos_token"] == "<|im_start|>"
    assert config["add_bos_token"] is True


# --- SentencePiece ----------------------------------------------------------------------------

PIECES = (
    ("▁the", -1.0), ("▁t", -2.0), ("he", -3.0), ("an", -4.0), ("▁an", -5.0), ("in", -6.0),
    ("▁in", -7.0), ("ann", -8.0), ("nn", -9.0), ("▁▁", -10.0), ("anna", -11.0), ("na", -12.0),
)  # fmt: skip
LETTERS = "▁thenaixé"
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6


def sentencepiece_metadata(**changes: Any) -> dict[str, Any]:
    """A Llama 2-like vocabulary: <unk> <s> </s>, the bytes, pieces by score, letters below them."""
    rows: list[tuple[str, float, int]] = [("<unk>", 0.0, UNKNOWN), ("<s>", 0.0, CONTROL)]
    rows += [("</s>", 0.0, CONTROL), *((f"<0x{byte:02X}>", 0.0, BYTE) for byte in range(256))]
    rows += [(piece, score, NORMAL) for piece, score in PIECES]
    rows += [(letter, -100.0 - i, NORMAL) for i, letter in enumerate(LETTERS)]
    rows += [("<|mine|>", 0.0, USER_DEFINED)]
    tokens, scores, types = (list(column) for column in zip(*rows, strict=True))
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": scores,
        "tokenizer.ggml.token_type": types,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
        **changes,
    }


def sentencepiece_by_definition(text: str) -> list[str]:
    """SentencePiece BPE: join the neighbours whose joint piece scores highest, leftmost first; what
    is no piece falls back to bytes."""
    scores = dict(PIECES)
    symbols = list("▁" + text.replace(" ", "▁")) if text else []
    while True:
        pairs = [
            (-scores[left + right], i)
            for i, (left, right) in enumerate(pairwise(symbols))
            if left + right in scores
        ]
        if not pairs:
            break
        _, at = min(pairs)
        symbols = [*symbols[:at], symbols[at] + symbols[at + 1], *symbols[at + 2 :]]
    known = {*scores, *LETTERS}
    return [
        token
        for symbol in symbols
        for token in (
            [symbol] if symbol in known else [f"<0x{byte:02X}>" for byte in symbol.encode()]
        )
    ]


@pytest.fixture(scope="module")
def sentencepiece() -> Tokenizer:
    content, _ = build_tokenizer(sentencepiece_metadata(), "test")
    return Tokenizer.from_str(json.dumps(content))


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="thenai x é🦙", max_size=40))
def test_sentencepiece_tokens_are_the_definitions(sentencepiece: Tokenizer, text: str) -> None:
    encoded = sentencepiece.encode(text, add_special_tokens=False)
    assert encoded.tokens == sentencepiece_by_definition(text)
    assert sentencepiece.decode(encoded.ids) == text


def test_sentencepiece_special_tokens(sentencepiece: Tokenizer) -> None:
    encoded = sentencepiece.encode("the<|mine|></s>")
    assert encoded.tokens == ["<s>", "▁the", "<|mine|>", "</s>"]
    assert sentencepiece.decode(encoded.ids) == "the<|mine|>"  # what the user defined is no control


def test_sentencepiece_without_the_space_before() -> None:
    content, _ = build_tokenizer(
        sentencepiece_metadata(**{"tokenizer.ggml.add_space_prefix": False}), "test"
    )
    tokenizer = Tokenizer.from_str(json.dumps(content))
    encoded = tokenizer.encode("the an", add_special_tokens=False)
    assert encoded.tokens == ["t", "he", "▁an"]
    assert tokenizer.decode(encoded.ids) == "the an"
