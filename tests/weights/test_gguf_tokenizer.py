"""Rebuilt tokenizers against plain BPE written from the definitions: how text is cut, which pair is
merged first, what falls back to bytes.

What can break it: the cut (digits, contractions, runs of spaces), special tokens inside the text,
multi-byte characters split over tokens, the order of merges, ties.
"""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, pre_tokenizers

from shadowattn_tvm.weights.gguf_tokenizer import build_tokenizer

from .tiny import MERGES, SPECIAL_TOKENS, Tiny, byte_level_vocabulary

regex = pytest.importorskip("regex", reason="needs the calibrate extra (Unicode classes)")

GPT2_WORDS = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

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


def cut_gpt2(text: str) -> list[str]:
    return regex.findall(GPT2_WORDS, text)


def cut_smollm(text: str) -> list[str]:
    """Every digit by itself, then as GPT-2."""
    return [
        word
        for part in regex.split(r"(\p{N})", text)
        if part
        for word in regex.findall(GPT2_WORDS, part)
    ]


def cut_llama3(text: str) -> list[str]:
    return regex.findall(LLAMA3_WORDS, text)


def byte_letters() -> dict[int, str]:
    """GPT-2's letter for each byte: printable Latin-1 stands for itself, the others follow 255."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = (byte for byte in range(256) if byte not in plain)
    letters = {byte: chr(byte) for byte in plain}
    return letters | {byte: chr(256 + i) for i, byte in enumerate(others)}


def merge_all(symbols: list[str], ranks: dict[tuple[str, str], int]) -> list[str]:
    """BPE: merge the neighbours of the lowest rank, leftmost first, until none is left."""
    while True:
        pairs = [(ranks[pair], i) for i, pair in enumerate(pairwise(symbols)) if pair in ranks]
        if not pairs:
            return symbols
        _, at = min(pairs)
        symbols = [*symbols[:at], symbols[at] + symbols[at + 1], *symbols[at + 2 :]]


def encode_by_definition(text: str, cut: Any, ignore_merges: bool = False) -> list[str]:
    letters, ranks = byte_letters(), {merge: i for i, merge in enumerate(MERGES)}
    whole = set(byte_level_vocabulary())
    specials = "|".join(regex.escape(token) for token in SPECIAL_TOKENS)
    tokens: list[str] = []
    for part in regex.split(f"({specials})", text):
        if part in SPECIAL_TOKENS:
            tokens.append(part)
            continue
        for word in cut(part):
            symbols = [letters[byte] for byte in word.encode()]
            joined = "".join(symbols)
            known = ignore_merges and joined in whole
            tokens += [joined] if known else merge_all(symbols, ranks)
    return tokens


def tokenizer_for(cut: str) -> Tokenizer:
    content, _ = build_tokenizer({**Tiny().gguf_metadata(), "tokenizer.ggml.pre": cut}, "test")
    return Tokenizer.from_str(json.dumps(content))


TOKENIZERS = {
    name: (tokenizer_for(name), cut, ignore)
    for name, cut, ignore in (
        ("gpt-2", cut_gpt2, False),
        ("smollm", cut_smollm, False),
        ("llama-bpe", cut_llama3, True),
    )
}


@pytest.mark.parametrize("name", TOKENIZERS)
@pytest.mark.parametrize("text", TEXTS)
def test_byte_level_tokens_are_the_definitions(name: str, text: str) -> None:
    tokenizer, cut, ignore_merges = TOKENIZERS[name]
    encoded = tokenizer.encode(text, add_special_tokens=False)
    assert encoded.tokens == encode_by_definition(text, cut, ignore_merges)
    assert tokenizer.decode(encoded.ids, skip_special_tokens=False) == text


@settings(max_examples=100, deadline=None)
@given(text=texts, name=st.sampled_from(list(TOKENIZERS)))
def test_byte_level_tokens_of_any_text(name: str, text: str) -> None:
    tokenizer, cut, ignore_merges = TOKENIZERS[name]
    encoded = tokenizer.encode(text, add_special_tokens=False)
    assert encoded.tokens == encode_by_definition(text, cut, ignore_merges)
    assert tokenizer.decode(encoded.ids, skip_special_tokens=False) == text


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
