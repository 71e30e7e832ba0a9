"""tokenizer.json from a GGUF file's metadata.

Two kinds are rebuilt: byte-level BPE ("gpt2"), whose merges the file stores, and SentencePiece BPE
("llama"), whose merges follow from the pieces' scores. How text is cut before BPE is only a name
in the file; names we don't know are refused, for a wrong cut gives wrong tokens silently.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import ConfigError, WeightsError

_UNKNOWN, _CONTROL, _USER_DEFINED, _BYTE = 2, 3, 4, 6
"""GGUF's token types that matter here."""

_SPACE = "\N{LOWER ONE EIGHTH BLOCK}"
"""SentencePiece's stand-in for a space."""

_LLAMA3_WORDS = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
"""How Llama 3 cuts text: contractions, words, up to three digits, punctuation, newlines, spaces."""


def _byte_level(*, use_regex: bool) -> dict[str, Any]:
    return {
        "type": "ByteLevel",
        "add_prefix_space": False,
        "trim_offsets": True,
        "use_regex": use_regex,
    }


_GPT2_CUT = _byte_level(use_regex=True)
_DIGITS_CUT = {
    "type": "Sequence",
    "pretokenizers": [{"type": "Digits", "individual_digits": True}, _GPT2_CUT],
}
_LLAMA3_CUT = {
    "type": "Sequence",
    "pretokenizers": [
        {
            "type": "Split",
            "pattern": {"Regex": _LLAMA3_WORDS},
            "behavior": "Isolated",
            "invert": False,
        },
        _byte_level(use_regex=False),
    ],
}

_QWEN2_CUT = {
    "type": "Sequence",
    "pretokenizers": [
        {
            "type": "Split",
            "pattern": {"Regex": _LLAMA3_WORDS.replace(r"\p{N}{1,3}", r"\p{N}")},
            "behavior": "Isolated",
            "invert": False,
        },
        _byte_level(use_regex=False),
    ],
}
"""As Llama 3, but digit by digit."""

_PRE_TOKENIZERS = {
    "gpt-2": _GPT2_CUT,
    "smollm": _DIGITS_CUT,
    "llama-bpe": _LLAMA3_CUT,
    "llama3": _LLAMA3_CUT,
    "llama-v3": _LLAMA3_CUT,
    "qwen2": _QWEN2_CUT,
}
"""llama.cpp's names for the cut, in `tokenizer.ggml.pre`."""


def build_tokenizer(
    metadata: Mapping[str, Any], where: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The contents of tokenizer.json and tokenizer_config.json.

    Raises `WeightsError` if the vocabulary is missing or inconsistent, `ConfigError` for a kind of
    tokenizer we can't rebuild.
    """
    kind = metadata.get("tokenizer.ggml.model")
    tokens = _vocabulary(metadata, where)
    if kind == "gpt2":
        parts = _byte_level_bpe(metadata, tokens, where)
    elif kind == "llama":
        parts = _sentencepiece_bpe(metadata, tokens, where)
    else:
        raise ConfigError(
            f"{where}: tokenizer.ggml.model: expected 'gpt2' or 'llama', got {kind!r}; convert "
            "this model from its Hugging Face checkpoint"
        )
    add_bos = bool(metadata.get("tokenizer.ggml.add_bos_token", kind == "llama"))
    bos = _special(metadata, "bos", tokens, where)
    tokenizer = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": _added_tokens(metadata, tokens, where),
        **parts,
        "post_processor": _prepend_token(bos, tokens) if add_bos and bos is not None else None,
    }
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "add_bos_token": add_bos,
        "bos_token": bos,
        "eos_token": _special(metadata, "eos", tokens, where),
        "pad_token": _special(metadata, "padding", tokens, where),
        "unk_token": _special(metadata, "unknown", tokens, where),
        "clean_up_tokenization_spaces": False,
        "model_max_length": metadata.get(f"{metadata.get('general.architecture')}.context_length"),
        "chat_template": metadata.get("tokenizer.chat_template"),
    }
    return tokenizer, {key: value for key, value in config.items() if value is not None}


def _vocabulary(metadata: Mapping[str, Any], where: str) -> list[str]:
    tokens: list[str] = _strings(metadata, "tokens", where)
    if len(set(tokens)) != len(tokens):
        raise WeightsError(f"{where}: tokenizer.ggml.tokens: expected every token once")
    return tokens


def _byte_level_bpe(metadata: Mapping[str, Any], tokens: list[str], where: str) -> dict[str, Any]:
    cut = metadata.get("tokenizer.ggml.pre")
    pre_tokenizer = _PRE_TOKENIZERS.get(cut) if isinstance(cut, str) else None
    if pre_tokenizer is None:
        raise ConfigError(
            f"{where}: tokenizer.ggml.pre: expected one of {', '.join(_PRE_TOKENIZERS)}, got "
            f"{cut!r}; convert this model from its Hugging Face checkpoint"
        )
    merges = [tuple(merge.split(" ")) for merge in _strings(metadata, "merges", where)]
    bad = next((merge for merge in merges if len(merge) != 2), None)
    if bad is not None:
        raise WeightsError(f"{where}: tokenizer.ggml.merges: expected pairs, got {' '.join(bad)!r}")
    return {
        # Qwen2 composes characters first (Unicode's NFC).
        "normalizer": {"type": "NFC"} if pre_tokenizer is _QWEN2_CUT else None,
        "pre_tokenizer": pre_tokenizer,
        "decoder": {**_byte_level(use_regex=True), "add_prefix_space": True},
        # Llama 3's vocabulary holds whole words that its merges don't build.
        "model": _bpe(tokens, merges, ignore_merges=pre_tokenizer is _LLAMA3_CUT),
    }


def _sentencepiece_bpe(
    metadata: Mapping[str, Any], tokens: list[str], where: str
) -> dict[str, Any]:
    scores = metadata.get("tokenizer.ggml.scores")
    if not isinstance(scores, list) or len(scores) != len(tokens):
        raise WeightsError(f"{where}: tokenizer.ggml.scores: expected a score for every token")
    types = _token_types(metadata, tokens, where)
    pieces = {
        token: float(score)
        for token, score, kind in zip(tokens, scores, types, strict=True)
        if kind not in (_UNKNOWN, _CONTROL, _BYTE)
    }
    unknown = next((t for t, kind in zip(tokens, types, strict=True) if kind == _UNKNOWN), None)
    add_space = bool(metadata.get("tokenizer.ggml.add_space_prefix", True))
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE}
    prepend = [{"type": "Prepend", "prepend": _SPACE}] if add_space else []
    strip = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if add_space else []
    return {
        "normalizer": {"type": "Sequence", "normalizers": [*prepend, replace]},
        "pre_tokenizer": None,
        "decoder": {
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": _SPACE}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                *strip,
            ],
        },
        "model": _bpe(
            tokens,
            merges_from_scores(pieces, {token: i for i, token in enumerate(tokens)}),
            unk_token=unknown,
            fuse_unk=True,
            byte_fallback=True,
        ),
    }


def merges_from_scores(
    pieces: Mapping[str, float], ids: Mapping[str, int]
) -> list[tuple[str, str]]:
    """The merges that make BPE choose as SentencePiece does: it joins the neighbours whose joint
    piece scores highest, so every split of a piece into two pieces is a merge, ranked by the
    piece's score; equal ones by the ids of their parts."""
    ranked = [
        (-score, ids[piece[:at]], ids[piece[at:]], piece[:at], piece[at:])
        for piece, score in pieces.items()
        for at in range(1, len(piece))
        if piece[:at] in pieces and piece[at:] in pieces
    ]
    return [(left, right) for *_, left, right in sorted(ranked)]


def _bpe(tokens: list[str], merges: list[Any], **settings: Any) -> dict[str, Any]:
    return {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": None,
        "end_of_word_suffix": None,
        "fuse_unk": False,
        "byte_fallback": False,
        "ignore_merges": False,
        **settings,
        "vocab": {token: i for i, token in enumerate(tokens)},
        "merges": [list(merge) for merge in merges],
    }


def _added_tokens(
    metadata: Mapping[str, Any], tokens: list[str], where: str
) -> list[dict[str, Any]]:
    """Tokens found in the text before anything else cuts it."""
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return [
        {"id": i, "content": token, **plain, "special": kind != _USER_DEFINED}
        for i, (token, kind) in enumerate(
            zip(tokens, _token_types(metadata, tokens, where), strict=True)
        )
        if kind in (_UNKNOWN, _CONTROL, _USER_DEFINED) and token
    ]


def _token_types(metadata: Mapping[str, Any], tokens: list[str], where: str) -> list[int]:
    types = metadata.get("tokenizer.ggml.token_type")
    if not isinstance(types, list) or len(types) != len(tokens):
        raise WeightsError(f"{where}: tokenizer.ggml.token_type: expected a type for every token")
    return types


def _prepend_token(token: str, tokens: list[str]) -> dict[str, Any]:
    """Post-processing that puts `token` before every text."""
    special = {"SpecialToken": {"id": token, "type_id": 0}}
    return {
        "type": "TemplateProcessing",
        "single": [special, {"Sequence": {"id": "A", "type_id": 0}}],
        "pair": [
            special,
            {"Sequence": {"id": "A", "type_id": 0}},
            {"Sequence": {"id": "B", "type_id": 1}},
        ],
        "special_tokens": {token: {"id": token, "ids": [tokens.index(token)], "tokens": [token]}},
    }


def _special(metadata: Mapping[str, Any], name: str, tokens: list[str], where: str) -> str | None:
    """The text of a special token, from its id."""
    token_id = metadata.get(f"tokenizer.ggml.{name}_token_id")
    if token_id is None:
        return None
    if not isinstance(token_id, int) or not 0 <= token_id < len(tokens):
        raise WeightsError(
            f"{where}: tokenizer.ggml.{name}_token_id: expected an id below {len(tokens)}, got "
            f"{token_id!r}"
        )
    return tokens[token_id]


def _strings(metadata: Mapping[str, Any], name: str, where: str) -> list[str]:
    value = metadata.get(f"tokenizer.ggml.{name}")
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise WeightsError(
            f"{where}: tokenizer.ggml.{name}: expected a list of strings, got "
            f"{type(value).__name__}; the file lacks its tokenizer"
        )
    return value
