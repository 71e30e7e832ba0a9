"""Hugging Face's `config.json` in MLC-LLM's words, and refusals of what we don't run, by name.

MLC passes silently over keys it doesn't know; here a key that asks for another computation is
refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal, get_args

from ..errors import ConfigError

ModelType = Literal["llama", "qwen2"]
"""The families we run, by their `model_type`."""

DEFAULT_ROPE_BASE = 10000
"""Llama's, where a config doesn't say."""

SUPPORTED = "the Llama family (Llama 2 and 3, SmolLM2, TinyLlama) and Qwen2 and 2.5"
"""For people, in refusals."""

_MAX_DEFAULT_CHUNK_TOKENS = 8192
"""MLC's bound on the prefill chunk where a config doesn't say."""

_SAME_NAMES = (
    "hidden_size",
    "intermediate_size",
    "num_attention_heads",
    "num_hidden_layers",
    "rms_norm_eps",
    "vocab_size",
)
"""Fields that both name alike."""

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


def mlc_fields(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The fields of MLC's `LlamaConfig` that a Hugging Face `config.json` determines, unvalidated;
    what it lacks and has no default is left out. Raises `ConfigError` for what we don't run."""
    refuse_unsupported(config, where)
    heads, kv_heads = config.get("num_attention_heads"), config.get("num_key_value_heads")
    context = next((config[name] for name in _CONTEXT_NAMES if config.get(name)), None)
    chunk = config.get("prefill_chunk_size") or context
    fields = {
        **{name: config.get(name) for name in _SAME_NAMES},
        "num_key_value_heads": heads if kv_heads is None else kv_heads,
        "head_dim": _head_dim(config),
        "context_window_size": context,
        "prefill_chunk_size": min(chunk, _MAX_DEFAULT_CHUNK_TOKENS)
        if isinstance(chunk, int)
        else chunk,
        "tie_word_embeddings": bool(config.get("tie_word_embeddings")),
        "qkv_bias": config.get("model_type") == "qwen2",
        **_rope_fields(config, where),
    }
    return {name: value for name, value in fields.items() if value is not None}


def refuse_unsupported(config: Mapping[str, Any], where: str) -> None:
    """Raise `ConfigError` naming every feature of a Hugging Face or MLC model config that we don't
    run; silently dropping one would compute something else."""
    problems = []
    model_type = config.get("model_type", "llama")
    if model_type not in get_args(ModelType):
        problems.append(f"model_type: expected 'llama' or 'qwen2', got {model_type!r}")
    activation = config.get("hidden_act", "silu")
    if activation not in ("silu", "swish"):
        problems.append(f"hidden_act: expected 'silu', got {activation!r}")
    for feature, keys in _UNSUPPORTED.items():
        for key in keys:
            used = config.get(key)
            if key == "sliding_window" and config.get("use_sliding_window") is False:
                continue
            if used not in _OFF:
                problems.append(f"{key}: no support for {feature}, got {str(used)[:60]}")
    if config.get("partial_rotary_factor", 1.0) != 1.0:
        problems.append(
            "partial_rotary_factor: no support for partial rotary embedding, got "
            f"{config['partial_rotary_factor']}"
        )
    layer_types = config.get("layer_types") or []
    if isinstance(layer_types, list):
        others = sorted({str(t) for t in layer_types} - {"full_attention"})
        if others:
            problems.append(f"layer_types: expected 'full_attention' only, got {others}")
    if problems:
        raise ConfigError(
            "\n  ".join([f"{where}: this model can't run here", *problems])
            + f"\nsupported: {SUPPORTED}"
        )


def _rope_fields(config: Mapping[str, Any], where: str) -> dict[str, Any]:
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
        "rope_scaling": _rope_scaling(scaling, where),
    }


def _rope_scaling(scaling: Mapping[str, Any], where: str) -> dict[str, Any] | None:
    """The `rope_scaling` object with one name for its type, or None for no scaling.
    Raises `ConfigError` for any kind but Llama 3's."""
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


def _head_dim(config: Mapping[str, Any]) -> Any:
    """Width of a head; where the config doesn't say, the heads share the hidden size."""
    if config.get("head_dim") is not None:
        return config["head_dim"]
    hidden, heads = config.get("hidden_size"), config.get("num_attention_heads")
    if isinstance(hidden, int) and isinstance(heads, int) and heads > 0:
        return hidden // heads
    return None
