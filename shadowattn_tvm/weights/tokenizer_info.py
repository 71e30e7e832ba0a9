"""What MLC-LLM's chat config says of a tokenizer, read off its tokenizer.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tokenizers import Tokenizer

from ..config.chat_config import TokenizerInfo
from ..errors import WeightsError

_SPACE = "\N{LOWER ONE EIGHTH BLOCK}"


def detect_tokenizer_info(tokenizer_json: Mapping[str, Any]) -> TokenizerInfo:
    """How tokens become text: the same answers as MLC's own detection (cpp/tokenizers), which
    looks at the types in `decoder` and `normalizer`."""
    decoders = _steps(tokenizer_json.get("decoder"), "decoders")
    normalizers = _steps(tokenizer_json.get("normalizer"), "normalizers")
    methods = {"ByteLevel": "byte_level", "ByteFallback": "byte_fallback"}
    found = [methods[step["type"]] for step in decoders if step.get("type") in methods]
    strip = {"type": "Strip", "content": " ", "start": 1, "stop": 0}
    return TokenizerInfo(
        token_postproc_method="byte_level" if found[-1:] == ["byte_level"] else "byte_fallback",
        prepend_space_in_encode={"type": "Prepend", "prepend": _SPACE} in normalizers,
        strip_space_in_decode=strip in decoders,
    )


def build_checked_tokenizer(text: str, vocab_size: int, where: str) -> Tokenizer:
    """The tokenizer a tokenizer.json describes. Raises `WeightsError` if it is malformed, or has
    more tokens than the model has embeddings."""
    try:
        tokenizer = Tokenizer.from_str(text)
    except Exception as error:  # the library raises plain Exception
        raise WeightsError(f"{where}: expected a tokenizer, got {error}") from None
    num_tokens = tokenizer.get_vocab_size(with_added_tokens=True)
    if num_tokens > vocab_size:
        raise WeightsError(
            f"{where}: expected at most the model's {vocab_size} tokens, got {num_tokens}; the "
            "tokenizer belongs to another model"
        )
    return tokenizer


def _steps(component: Any, key: str) -> list[dict[str, Any]]:
    """A component's steps: those of a sequence, or itself."""
    if not isinstance(component, dict):
        return []
    steps = component.get(key) if component.get("type") == "Sequence" else [component]
    return [step for step in steps if isinstance(step, dict)] if isinstance(steps, list) else []
