"""Llama once more, in float64 NumPy and with nothing shared: what the torch model is tested by."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from shadowattn_tvm.config import LlamaConfig

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Trace:
    """One whole sequence at once.

    Attributes
    ----------
    q : per layer, rotated queries `[tokens, num_q_heads, head_dim]`.
    k : per layer, rotated keys `[tokens, num_kv_heads, head_dim]`.
    hidden : after the final norm, `[tokens, hidden_size]`.
    """

    q: list[Array]
    k: list[Array]
    hidden: Array


def run(
    config: LlamaConfig, parameters: Mapping[str, NDArray[np.float32]], ids: NDArray[np.int64]
) -> Trace:
    """Dense causal forward pass over plain parameters with MLC's names; no rope scaling."""
    assert config.rope_scaling is None
    w = {name: array.astype(np.float64) for name, array in parameters.items()}
    tokens, d = len(ids), config.head_dim
    hq, hkv = config.num_attention_heads, config.num_key_value_heads
    x = w["model.embed_tokens.weight"][ids]
    queries, keys = [], []
    for layer in range(config.num_hidden_layers):
        p = f"model.layers.{layer}"
        y = _norm(x, w[f"{p}.input_layernorm.weight"], config)
        stem = f"{p}.self_attn.{config.fused_qkv_name}"
        qkv = y @ w[f"{stem}.weight"].T + w.get(f"{stem}.bias", 0.0)
        qkv = qkv.reshape(tokens, hq + 2 * hkv, d)
        q, k, v = _rotate(qkv[:, :hq], config), _rotate(qkv[:, hq:-hkv], config), qkv[:, -hkv:]
        queries.append(q)
        keys.append(k)
        heads = [
            _softmax_causal(q[:, h] @ k[:, h * hkv // hq].T / np.sqrt(d)) @ v[:, h * hkv // hq]
            for h in range(hq)
        ]
        x = x + np.concatenate(heads, axis=1) @ w[f"{p}.self_attn.o_proj.weight"].T
        y = _norm(x, w[f"{p}.post_attention_layernorm.weight"], config)
        gate, up = np.split(y @ w[f"{p}.mlp.gate_up_proj.weight"].T, 2, axis=1)
        x = x + (gate / (1 + np.exp(-gate)) * up) @ w[f"{p}.mlp.down_proj.weight"].T
    return Trace(queries, keys, _norm(x, w["model.norm.weight"], config))


def _norm(x: Array, weight: Array, config: LlamaConfig) -> Array:
    return x / np.sqrt((x**2).mean(axis=1, keepdims=True) + config.rms_norm_eps) * weight


def _rotate(x: Array, config: LlamaConfig) -> Array:
    """Each channel pair (i, i + d/2) as one complex number, turned by its angle."""
    half = config.head_dim // 2
    frequency = config.position_embedding_base ** (-np.arange(half) / half)
    angle = np.arange(len(x))[:, None, None] * frequency
    turned = (x[..., :half] + 1j * x[..., half:]) * np.exp(1j * angle)
    return np.concatenate([turned.real, turned.imag], axis=-1)


def _softmax_causal(scores: Array) -> Array:
    scores = np.where(np.tri(len(scores), dtype=bool), scores, -np.inf)
    e = np.exp(scores - scores.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)
