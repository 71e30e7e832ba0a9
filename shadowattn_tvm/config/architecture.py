"""The shape of a model: MLC-LLM's `LlamaConfig`, strictly validated.

Field names and defaults are MLC's (mlc_llm/model/llama/llama_model.py), so that what we write into
`model_config` of an `mlc-chat-config.json` is what MLC reads, and the other way round. What the
kernels can't compute is refused by name, never run differently.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from ..errors import ConfigError, ShadowAttnError
from .documents import validated

PositiveInt = Annotated[int, Field(ge=1)]
PositiveFloat = Annotated[float, Field(gt=0.0, allow_inf_nan=False)]

DEFAULT_ROPE_BASE = 10000
"""Llama's, where a config doesn't say."""

MAX_DEFAULT_CHUNK_TOKENS = 8192
"""MLC's bound on the prefill chunk where a config doesn't say."""

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
        refuse_unsupported(config, where)
        rope = _rope_parameters(config, where)
        heads = config.get("num_attention_heads")
        head_dim = config.get("head_dim")
        if head_dim is None and isinstance(heads, int) and heads > 0:
            head_dim = _quotient(config.get("hidden_size"), heads)
        context = next((config[name] for name in _CONTEXT_NAMES if config.get(name)), None)
        chunk = config.get("prefill_chunk_size") or context
        kv_heads = config.get("num_key_value_heads")
        mapped = {
            "rms_norm_eps": config.get("rms_norm_eps"),
            "num_key_value_heads": heads if kv_heads is None else kv_heads,
            "head_dim": head_dim,
            "context_window_size": context,
            "prefill_chunk_size": min(chunk, MAX_DEFAULT_CHUNK_TOKENS)
            if isinstance(chunk, int)
            else chunk,
            "tie_word_embeddings": bool(config.get("tie_word_embeddings")),
            **rope,
        }
        same = ("hidden_size", "intermediate_size", "num_attention_heads", "num_hidden_layers")
        mapped |= {name: config.get(name) for name in (*same, "vocab_size")}
        present = {name: value for name, value in mapped.items() if value is not None}
        return cls.parse(present, where)


_CONTEXT_NAMES = ("context_window_size", "max_position_embeddings", "max_sequence_length")
"""Where MLC looks for the context length, in its order."""

_UNSUPPORTED = {
    "sliding-window attention": ("sliding_window", "sliding_window_size", "attention_chunk_size"),
    "multi-head latent attention (MLA)": ("kv_lora_rank", "q_lora_rank"),
    "mixture of experts": ("num_local_experts", "num_experts", "n_routed_experts"),
    "biases in the projections": ("attention_bias", "mlp_bias", "bias", "qkv_bias"),
    "weights already quantized by another tool": ("quantization_config",),
    "query/key normalization": ("use_qk_norm", "qk_norm"),
}
"""What the kernels don't compute, and the config keys that ask for it."""

_OFF: tuple[object, ...] = (None, False, 0, -1, [], {})
"""Values that say a feature is not used."""


def refuse_unsupported(config: Mapping[str, Any], where: str) -> None:
    """Raise `ConfigError` naming every feature of a Hugging Face or MLC model config that we don't
    run; silently dropping one would compute something else."""
    problems = []
    model_type = config.get("model_type", "llama")
    if model_type != "llama":
        problems.append(f"model_type: expected 'llama', got {model_type!r}")
    activation = config.get("hidden_act", "silu")
    if activation not in ("silu", "swish"):
        problems.append(f"hidden_act: expected 'silu', got {activation!r}")
    for feature, keys in _UNSUPPORTED.items():
        for key in keys:
            used = config.get(key)
            if key == "sliding_window" and config.get("use_sliding_window") is False:
                continue
            if used not in _OFF:
                problems.append(f"{key}: {feature} is not supported, got {str(used)[:60]}")
    if config.get("partial_rotary_factor", 1.0) != 1.0:
        problems.append(
            "partial_rotary_factor: expected 1.0 (partial rotary embedding is not supported), "
            f"got {config['partial_rotary_factor']}"
        )
    layer_types = config.get("layer_types") or []
    if isinstance(layer_types, list):
        others = sorted({str(t) for t in layer_types} - {"full_attention"})
        if others:
            problems.append(f"layer_types: expected 'full_attention' only, got {others}")
    if problems:
        raise ConfigError(
            "\n  ".join([f"{where}: this model can't run here", *problems])
            + "\nsupported: the Llama family (Llama 2 and 3, SmolLM2, TinyLlama)"
        )


def _rope_parameters(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Rotary base and scaling, from `rope_theta` and `rope_scaling` (transformers up to 4) or from
    `rope_parameters` (transformers 5)."""
    combined = config.get("rope_parameters") or {}
    scaling = config.get("rope_scaling") or combined
    if not isinstance(combined, Mapping) or not isinstance(scaling, Mapping):
        raise ConfigError(f"{where}: rope_scaling: expected an object or null, got {scaling!r}")
    base = config.get("rope_theta", combined.get("rope_theta"))
    base = config.get("position_embedding_base") or base or DEFAULT_ROPE_BASE
    return {
        "position_embedding_base": base,
        "rope_scaling": normalize_rope_scaling(scaling, where),
    }


def normalize_rope_scaling(scaling: Mapping[str, Any], where: str) -> dict[str, Any] | None:
    """The `rope_scaling` object with one name for its type and floats where floats belong, or None
    for none. Raises `ConfigError` for any kind but Llama 3's."""
    kind = scaling.get("rope_type", scaling.get("type"))
    if kind in (None, "default"):
        rest = set(scaling) - {"rope_theta", "rope_type", "type"}
        if rest:
            raise ConfigError(f"{where}: rope_scaling: expected a rope_type, got {dict(scaling)}")
        return None
    if kind != "llama3":
        raise ConfigError(
            f"{where}: rope_scaling.rope_type: expected 'llama3' or none, got {kind!r}; other ways "
            "of stretching the context are not supported"
        )
    kept = {k: v for k, v in scaling.items() if k not in ("type", "rope_theta")}
    return {**kept, "rope_type": "llama3"}


def _quotient(hidden_size: Any, heads: int) -> int | None:
    """Head width where a config doesn't say."""
    return hidden_size // heads if isinstance(hidden_size, int) else None
