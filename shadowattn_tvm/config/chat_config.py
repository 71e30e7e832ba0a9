"""`mlc-chat-config.json`: how a model directory describes itself, to us and to MLC-LLM alike.

The fields are those of MLC's `MLCChatConfig` (mlc_llm/protocol/mlc_chat_config.py). Types are
strict; keys we don't know are passed over where MLC passes over them, so that a directory MLC
converted opens here too.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from ..errors import ConfigError
from .architecture import LlamaConfig
from .conversation import Conversation
from .documents import read_json_object, validated
from .hugging_face import ModelType, refuse_unsupported
from .model_words import from_mlc_words, to_mlc_words

CHAT_CONFIG_FILE = "mlc-chat-config.json"
"""The file's name in a model directory."""

CHAT_CONFIG_VERSION = "0.1.0"
"""The format's version, as MLC writes it."""

Quantization = Literal["q0f32", "q4f32_1", "q0f16", "q4f16_1"]
"""MLC's names: float32 weights, 4-bit groups of 32 with float32 scales, and both in float16."""

QUANTIZATIONS: tuple[str, ...] = get_args(Quantization)

ModelDtype = Literal["float32", "float16"]


def model_dtype(quantization: Quantization) -> ModelDtype:
    """What a model computes with between its kernels and keeps in its KV cache: the dtype of its
    weights, or of their scales."""
    return "float16" if quantization in ("q0f16", "q4f16_1") else "float32"


def is_quantized(quantization: Quantization) -> bool:
    """Whether matrices are stored in 4 bits."""
    return quantization in ("q4f32_1", "q4f16_1")


TokenId = Annotated[int, Field(ge=0)]
Penalty = Annotated[float, Field(ge=-2.0, le=2.0)]


class TokenizerInfo(BaseModel):
    """What a detokenizer has to know; detected from tokenizer.json as MLC detects it.

    Attributes
    ----------
    token_postproc_method : how a token's text becomes bytes: "byte_level" (GPT-2's alphabet) or
        "byte_fallback" (SentencePiece: `<0x1B>` and a low line for the space).
    prepend_space_in_encode : the tokenizer puts a space before the text.
    strip_space_in_decode : and takes it away again.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", strict=True)

    token_postproc_method: Literal["byte_fallback", "byte_level"] = "byte_fallback"
    prepend_space_in_encode: bool = False
    strip_space_in_decode: bool = False


class ChatConfig(BaseModel):
    """One model directory's description.

    Attributes
    ----------
    architecture : MLC's `model_config`: the model and its compiled limits.
    context_window_size, prefill_chunk_size : run-time limits, in tokens, at most the compiled ones.
    active_vocab_size : tokens the tokenizer knows; logits beyond are padding.
    temperature ... top_p : defaults for sampling.
    conv_template : how a conversation becomes a prompt.
    """

    model_config = ConfigDict(
        frozen=True, extra="ignore", strict=True, validate_by_name=True, validate_by_alias=True
    )

    version: str = CHAT_CONFIG_VERSION
    type_: ModelType = Field(alias="model_type", default="llama")
    quantization: Quantization
    architecture: LlamaConfig = Field(alias="model_config")
    vocab_size: int
    context_window_size: Annotated[int, Field(ge=1)]
    sliding_window_size: Literal[-1] = -1
    prefill_chunk_size: Annotated[int, Field(ge=1)]
    attention_sink_size: Literal[-1] = -1
    tensor_parallel_shards: Literal[1] = 1
    pipeline_parallel_stages: Literal[1] = 1
    active_vocab_size: Annotated[int, Field(ge=1)] | None = None
    temperature: Annotated[float, Field(ge=0.0)] | None = 1.0
    presence_penalty: Penalty | None = 0.0
    frequency_penalty: Penalty | None = 0.0
    repetition_penalty: Annotated[float, Field(gt=0.0)] | None = 1.0
    top_p: Annotated[float, Field(ge=0.0, le=1.0)] | None = 1.0
    tokenizer_files: Annotated[tuple[str, ...], Field(strict=False)] = ()
    tokenizer_info: TokenizerInfo = TokenizerInfo()
    conv_template: Conversation
    pad_token_id: TokenId | None = None
    bos_token_id: TokenId | None = None
    eos_token_id: TokenId | Annotated[tuple[TokenId, ...], Field(strict=False)] | None = None
    task: Literal["chat"] = Field(alias="model_task", default="chat")

    @field_validator("tokenizer_files")
    @classmethod
    def _plain_names(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if not is_plain_file_name(name):
                raise ValueError(f"expected the name of a file in the folder, got {name!r}")
        return value

    @model_validator(mode="after")
    def _agrees_with_the_model(self) -> Self:
        model = self.architecture
        if self.type_ != model.model_type:
            raise ValueError(
                f"model_type: expected model_config's {model.model_type!r}, got {self.type_!r}"
            )
        if self.vocab_size != model.vocab_size:
            raise ValueError(
                f"vocab_size: expected model_config's {model.vocab_size}, got {self.vocab_size}"
            )
        for name in ("context_window_size", "prefill_chunk_size"):
            compiled, chosen = getattr(model, name), getattr(self, name)
            if chosen > compiled:
                raise ValueError(
                    f"{name}: expected at most model_config's {compiled}, got {chosen}"
                )
        if self.active_vocab_size is not None and self.active_vocab_size > self.vocab_size:
            raise ValueError(
                f"active_vocab_size: expected at most vocab_size {self.vocab_size}, "
                f"got {self.active_vocab_size}"
            )
        return self

    @property
    def stop_token_ids(self) -> tuple[int, ...]:
        """Tokens that end an answer: the conversation template's and the model's own, sorted."""
        eos = self.eos_token_id
        own = () if eos is None else (eos,) if isinstance(eos, int) else eos
        return tuple(sorted({*self.conv_template.stop_token_ids, *own}))

    @classmethod
    def parse(cls, value: Mapping[str, Any], where: str) -> ChatConfig:
        """Validate the file's object; `where` names it in error messages. Raises `ConfigError`."""
        compiled = value.get("model_config")
        if not isinstance(compiled, Mapping):
            raise ConfigError(f"{where}: model_config: expected an object, got {compiled!r}")
        asked = {k: v for k, v in value.items() if k in ("model_type", "sliding_window_size")}
        refuse_unsupported({**compiled, **asked}, where)
        known = from_mlc_words(compiled, value.get("model_type"))
        return validated(cls, {**value, "model_config": known}, where)

    @classmethod
    def read(cls, path: Path) -> ChatConfig:
        """Read and validate a file. Raises `ConfigError`."""
        return cls.parse(read_json_object(path), str(path))

    def to_json(self) -> str:
        """The file's text."""
        content = self.model_dump(mode="json", by_alias=True)
        content["model_config"] = to_mlc_words(self.architecture)
        return json.dumps(content, indent=2, ensure_ascii=False) + "\n"


def is_plain_file_name(name: str) -> bool:
    """Whether `name` stays in the folder it is looked up in: no separators, no parents, not
    hidden. For names found in files, which may come from anywhere."""
    separators = set("/\\\0")
    return name != "" and not name.startswith(".") and separators.isdisjoint(name)
