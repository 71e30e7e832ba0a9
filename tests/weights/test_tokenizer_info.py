"""Detection of the tokenizer's kind: MLC-LLM's answers on each shape a tokenizer.json takes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from shadowattn_tvm.config import TokenizerInfo
from shadowattn_tvm.errors import WeightsError
from shadowattn_tvm.weights.gguf_tokenizer import build_tokenizer
from shadowattn_tvm.weights.tokenizer_info import build_checked_tokenizer, detect_tokenizer_info

from .test_gguf_tokenizer import sentencepiece_metadata
from .tiny import Tiny, byte_level_tokenizer

BYTE_LEVEL = {"type": "ByteLevel"}
BYTE_FALLBACK = {"type": "ByteFallback"}
STRIP = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
PREPEND = {"type": "Prepend", "prepend": "▁"}
REPLACE = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}


def sequence(kind: str, *steps: dict[str, Any]) -> dict[str, Any]:
    return {"type": "Sequence", kind: list(steps)}


CASES: dict[str, tuple[dict[str, Any], TokenizerInfo]] = {
    "nothing": ({}, TokenizerInfo()),
    "byte level": ({"decoder": BYTE_LEVEL}, TokenizerInfo(token_postproc_method="byte_level")),
    "byte level in a sequence": (
        {"decoder": sequence("decoders", {"type": "Fuse"}, BYTE_LEVEL), "normalizer": None},
        TokenizerInfo(token_postproc_method="byte_level"),
    ),
    "Llama 2": (
        {
            "decoder": sequence("decoders", REPLACE, BYTE_FALLBACK, {"type": "Fuse"}, STRIP),
            "normalizer": sequence("normalizers", PREPEND, REPLACE),
        },
        TokenizerInfo(prepend_space_in_encode=True, strip_space_in_decode=True),
    ),
    "no sequence": (
        {"decoder": STRIP, "normalizer": PREPEND},
        TokenizerInfo(prepend_space_in_encode=True, strip_space_in_decode=True),
    ),
    "another strip": ({"decoder": {**STRIP, "start": 2}}, TokenizerInfo()),
    "another prefix": ({"normalizer": {**PREPEND, "prepend": "x"}}, TokenizerInfo()),
    "not even objects": ({"decoder": [1], "normalizer": "x"}, TokenizerInfo()),
    "steps that are no list": ({"decoder": {"type": "Sequence", "decoders": 3}}, TokenizerInfo()),
}


@pytest.mark.parametrize("case", CASES)
def test_detection(case: str) -> None:
    content, expected = CASES[case]
    assert detect_tokenizer_info(content) == expected


def test_detection_on_what_we_build() -> None:
    byte_level, _ = build_tokenizer(Tiny().gguf_metadata(), "test")
    assert detect_tokenizer_info(byte_level).token_postproc_method == "byte_level"
    llama, _ = build_tokenizer(sentencepiece_metadata(), "test")
    assert detect_tokenizer_info(llama) == CASES["Llama 2"][1]


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"model": {"type": "BPE"}}', '{"version": 9}'])
def test_a_malformed_tokenizer_is_refused(text: str) -> None:
    with pytest.raises(WeightsError, match=r"tokenizer\.json: expected a tokenizer"):
        build_checked_tokenizer(text, 1000, "tokenizer.json")


def test_a_tokenizer_of_another_model_is_refused() -> None:
    text = byte_level_tokenizer().to_str()
    assert json.loads(text)["model"]["type"] == "BPE"
    assert build_checked_tokenizer(text, 265, "x").get_vocab_size() == 265
    with pytest.raises(WeightsError, match="at most the model's 264 tokens, got 265"):
        build_checked_tokenizer(text, 264, "x")
