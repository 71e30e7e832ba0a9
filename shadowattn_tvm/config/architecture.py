"""The shape of a model: MLC-LLM's `LlamaConfig`, strictly validated.

Field names and defaults are MLC's (mlc_llm/model/llama/llama_model.py), so that what we write into
`model_config` of an `mlc-chat-config.json` is what MLC reads, and the other way round. Qwen2 is a
Llama with one difference, `qkv_bias`; `model_words` has what MLC calls things there. What the
kernels can't compute is refused by name, never run differently.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from ..errors import ConfigError, ShadowAttnError
from .documents import validated
from .hugging_face import DEFAULT_ROPE_BASE, ModelType, mlc_fields

PositiveInt = Annotated[int, Field(ge=1)]
PositiveFloat = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]

_MAX_DIMENSION = 1 << 24
"""No dimension of a model comes near it; sizes beyond are a corrupt or hostile file."""

Dimension = Annotated[int, Field(ge=1, le=_MAX_DIMENSION)]


class Llama3RopeScaling(BaseModel):
    """Llama 3's frequency-dependent stretching of the rotary embedding.

    Attributes
    ----------
    factor : what the lowest frequencies are divided by.
    low_freq_factor, high_freq_factor : wavelengths beyond `original / low` are divided, those
        below `original / high` are kept, those between are interpolated.
    original_max_position_embeddings : context the model was first trained with, in tokens.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    factor: PositiveFloat
    low_freq_factor: PositiveFloat
    high_freq_factor: PositiveFloat
    original_max_position_embeddings: PositiveInt
    rope_type: Literal["llama3"] = "llama3"

    @model_validator(mode="after")
    def _bands_are_ordered(self) -> Self:
        if self.low_freq_factor >= self.high_freq_factor:
            raise ValueError(
                f"expected low_freq_factor < high_freq_factor, got {self.low_freq_factor} and "
                f"{self.high_freq_factor}"
            )
        return self


class LlamaConfig(BaseModel):
    """A Llama-family decoder, in MLC's terms.

    Attributes
    ----------
    hidden_size, intermediate_size : widths of the residual stream and of the MLP.
    num_attention_heads, num_key_value_heads, head_dim : attention geometry (GQA).
    tie_word_embeddings : the output projection is the embedding itself.
    position_embedding_base : rotary base (theta).
    context_window_size, prefill_chunk_size : compiled limits, in tokens.
    max_batch_size : sequences in one batch; a library of ours serves one conversation.
    qkv_bias : the query, key and value projections add a vector (Qwen2). Not a field of MLC's.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    hidden_size: Dimension
    intermediate_size: Dimension
    num_attention_heads: Dimension
    num_hidden_layers: Annotated[int, Field(ge=1, le=10_000)]
    rms_norm_eps: PositiveFloat
    vocab_size: Dimension
    tie_word_embeddings: bool = False
    position_embedding_base: int | float = DEFAULT_ROPE_BASE
    rope_scaling: Llama3RopeScaling | None = None
    context_window_size: Dimension
    prefill_chunk_size: Dimension
    num_key_value_heads: Dimension
    head_dim: Annotated[int, Field(ge=2, le=4096, multiple_of=2)]
    tensor_parallel_shards: int = 1
    pipeline_parallel_stages: int = 1
    max_batch_size: PositiveInt = 1
    disaggregation: bool = False
    qkv_bias: bool = False

    @field_validator("position_embedding_base")
    @classmethod
    def _base_is_positive(cls, value: int | float) -> int | float:
        if not 0.0 < value < float("inf"):
            raise ValueError(f"expected a positive rotary base, got {value}")
        return int(value) if value == int(value) else value  # MLC writes it as an integer

    @field_validator("tensor_parallel_shards", "pipeline_parallel_stages")
    @classmethod
    def _one_device(cls, value: int) -> int:
        if value != 1:
            raise ValueError(
                f"expected 1 (one device; parallel models are not supported), got {value}"
            )
        return value

    @field_validator("disaggregation")
    @classmethod
    def _not_disaggregated(cls, value: bool) -> bool:
        if value:
            raise ValueError("expected false (disaggregated serving is not supported), got true")
        return value

    @model_validator(mode="after")
    def _heads_and_limits_agree(self) -> Self:
        if self.num_attention_heads % self.num_key_value_heads != 0:
            raise ValueError(
                "num_key_value_heads: expected a divisor of num_attention_heads "
                f"{self.num_attention_heads}, got {self.num_key_value_heads}"
            )
        if self.prefill_chunk_size > self.context_window_size:
            raise ValueError(
                f"prefill_chunk_size: expected at most context_window_size "
                f"{self.context_window_size}, got {self.prefill_chunk_size}"
            )
        return self

    @property
    def model_type(self) -> ModelType:
        """The family, by Hugging Face's and MLC's name."""
        return "qwen2" if self.qkv_bias else "llama"

    @property
    def fused_qkv_name(self) -> str:
        """MLC's name for the fused query, key and value projection."""
        return "c_attn" if self.qkv_bias else "qkv_proj"

    @property
    def q_size(self) -> int:
        """Width of all query heads together."""
        return self.num_attention_heads * self.head_dim

    @property
    def kv_size(self) -> int:
        """Width of all key (or all value) heads together."""
        return self.num_key_value_heads * self.head_dim

    def with_limits(
        self, *, context_window_size: int | None = None, prefill_chunk_size: int | None = None
    ) -> LlamaConfig:
        """The same model with other compiled limits, in tokens; a chunk longer than the context is
        cut to it. Raises `ConfigError`."""
        context = self.context_window_size if context_window_size is None else context_window_size
        chunk = self.prefill_chunk_size if prefill_chunk_size is None else prefill_chunk_size
        if context_window_size is not None and context > self.context_window_size:
            raise ConfigError(
                f"context_window_size: expected at most the model's own "
                f"{self.context_window_size} tokens, got {context}"
            )
        if prefill_chunk_size is None:
            chunk = min(chunk, context)
        limits = {"context_window_size": context, "prefill_chunk_size": chunk}
        return LlamaConfig.parse({**self.model_dump(), **limits}, "model limits")

    @classmethod
    def parse(
        cls,
        value: Mapping[str, Any],
        where: str,
        error_class: type[ShadowAttnError] = ConfigError,
    ) -> LlamaConfig:
        """Validate MLC's `model_config` object; `where` names it in error messages.
        Raises `error_class`."""
        return validated(cls, value, where, error_class)

    @classmethod
    def from_hf_config(cls, config: Mapping[str, Any], where: str = "config.json") -> LlamaConfig:
        """From a Hugging Face `config.json`. Raises `ConfigError` naming every feature of the model
        that we don't run, and every value that is missing or malformed."""
        return cls.parse(mlc_fields(config, where), where)
