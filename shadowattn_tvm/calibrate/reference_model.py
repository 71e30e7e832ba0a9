"""A float32 Llama forward pass in torch, written to be watched: attention is an argument.

It reads the same MLC parameters the compiled library reads, and prefills in chunks as the library
does, so what it hands to the attention function (rotated queries of a chunk, rotated keys and
values of the chunk and everything before it) is what the library's attention kernels see.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from ..config import LlamaConfig
from ..weights import ModelDirectory, load_parameters
from ..weights.dequantize import plain_parameters

AttentionFunction = Callable[[int, Tensor, Tensor, Tensor], Tensor]
"""Attention of one layer over one chunk: `(layer, q, k, v) -> output`.

q and the output are `[num_q_heads, chunk, head_dim]`; k and v are `[num_kv_heads, past + chunk,
head_dim]`, the chunk's own rows last. q and k are rotated. Row i of q is at position past + i.
"""


def dense_attention(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Exact causal attention with grouped KV heads; see `AttentionFunction`."""
    del layer  # the same in every layer
    num_rows, num_keys = q.shape[1], k.shape[1]
    visible = torch.ones(num_rows, num_keys, dtype=torch.bool).tril(num_keys - num_rows)
    return functional.scaled_dot_product_attention(
        q[None], k[None], v[None], attn_mask=visible, enable_gqa=True
    )[0]


class ReferenceModel:
    """A Llama model on the CPU. Deterministic for a fixed number of torch threads.

    Parameters
    ----------
    config : the architecture.
    parameters : MLC's parameters by MLC's names, plain or q4f32_1 (dequantized here).
    """

    def __init__(self, config: LlamaConfig, parameters: Mapping[str, NDArray[Any]]) -> None:
        self.config = config
        self._weights = {
            # A copy: torch wants writable memory, and parameters are mapped files.
            name: torch.tensor(array)
            for name, array in plain_parameters(parameters)
        }
        self._frequencies = _rotary_frequencies(config)

    @classmethod
    def load(cls, directory: ModelDirectory) -> Self:
        """The model of an MLC model directory. Raises `WeightsError` as `load_parameters` does."""
        return cls(directory.architecture, load_parameters(directory))

    def prefill(
        self,
        token_ids: NDArray[np.int64],
        *,
        chunk_tokens: int,
        attend: AttentionFunction = dense_attention,
    ) -> Tensor:
        """Hidden states `[tokens, hidden_size]` after the final norm, of `token_ids` `[tokens]`
        processed in chunks of `chunk_tokens` (the last may be shorter)."""
        caches = [_LayerCache() for _ in range(self.config.num_hidden_layers)]
        ids = torch.from_numpy(token_ids)
        chunks = []
        for start in range(0, len(ids), chunk_tokens):
            x = self._weights["model.embed_tokens.weight"][ids[start : start + chunk_tokens]]
            rotation = _Rotation(torch.arange(start, start + len(x)), self._frequencies)
            for layer, cache in enumerate(caches):
                x = x + self._attention(layer, x, rotation, cache, attend)
                x = x + self._mlp(layer, x)
            chunks.append(self._norm(x, "model.norm.weight"))
        return torch.cat(chunks)

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits `[tokens, vocab_size]` of hidden states `[tokens, hidden_size]`."""
        head = "model.embed_tokens.weight" if self.config.tie_word_embeddings else "lm_head.weight"
        return functional.linear(hidden, self._weights[head])

    def embed(self, token_ids: Tensor) -> Tensor:
        """Hidden states `[rows, hidden_size]` before the first layer, of ids `[rows]` int64."""
        return self._weights["model.embed_tokens.weight"][token_ids]

    def run_layer(
        self, layer: int, x: Tensor, positions: Tensor, attend: AttentionFunction
    ) -> Tensor:
        """Hidden states after one layer, of `x` before it; both `[rows, hidden_size]`.

        `positions` `[rows]` turn the rotary embedding. There is no past: which rows attend to
        which is up to `attend`, so that the rows may be several sequences.
        """
        rotation = _Rotation(positions, self._frequencies)
        x = x + self._attention(layer, x, rotation, _LayerCache(), attend)
        return x + self._mlp(layer, x)

    def final_norm(self, x: Tensor) -> Tensor:
        """What `logits` takes, of hidden states `[rows, hidden_size]` after the last layer."""
        return self._norm(x, "model.norm.weight")

    def _norm(self, x: Tensor, name: str) -> Tensor:
        mean_square = x.pow(2).mean(-1, keepdim=True)
        return x * torch.rsqrt(mean_square + self.config.rms_norm_eps) * self._weights[name]

    def _linear(self, x: Tensor, layer: int, name: str) -> Tensor:
        stem = f"model.layers.{layer}.{name}"
        return functional.linear(
            x, self._weights[f"{stem}.weight"], self._weights.get(f"{stem}.bias")
        )

    def _attention(
        self,
        layer: int,
        x: Tensor,
        rotation: _Rotation,
        cache: _LayerCache,
        attend: AttentionFunction,
    ) -> Tensor:
        config = self.config
        num_q, num_kv = config.num_attention_heads, config.num_key_value_heads
        normed = self._norm(x, f"model.layers.{layer}.input_layernorm.weight")
        qkv = self._linear(normed, layer, f"self_attn.{config.fused_qkv_name}")
        heads = qkv.view(len(x), num_q + 2 * num_kv, config.head_dim).transpose(0, 1)
        q, k, v = torch.split(heads, [num_q, num_kv, num_kv])
        k, v = cache.append(rotation(k), v)
        output = attend(layer, rotation(q), k, v)
        return self._linear(output.transpose(0, 1).flatten(1), layer, "self_attn.o_proj")

    def _mlp(self, layer: int, x: Tensor) -> Tensor:
        normed = self._norm(x, f"model.layers.{layer}.post_attention_layernorm.weight")
        gate, up = self._linear(normed, layer, "mlp.gate_up_proj").chunk(2, dim=-1)
        return self._linear(functional.silu(gate) * up, layer, "mlp.down_proj")


class _LayerCache:
    """Rotated keys and values of one layer so far, `[num_kv_heads, tokens, head_dim]` each."""

    def __init__(self) -> None:
        self._keys: list[Tensor] = []
        self._values: list[Tensor] = []

    def append(self, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Add a chunk and return everything so far, itself included."""
        self._keys = [torch.cat([*self._keys, k], dim=1)]
        self._values = [torch.cat([*self._values, v], dim=1)]
        return self._keys[0], self._values[0]


class _Rotation:
    """Rotary embedding of one chunk: cos and sin of its angles, `[chunk, head_dim]` each."""

    def __init__(self, positions: Tensor, frequencies: Tensor) -> None:
        angles = torch.outer(positions.float(), frequencies).repeat(1, 2)
        self._cos, self._sin = angles.cos(), angles.sin()

    def __call__(self, x: Tensor) -> Tensor:
        """Rotate `[heads, chunk, head_dim]`: channel i turns together with channel
        i + head_dim / 2 (the "half" layout of Hugging Face and MLC)."""
        first, second = x.chunk(2, dim=-1)
        return x * self._cos + torch.cat([-second, first], dim=-1) * self._sin


def _rotary_frequencies(config: LlamaConfig) -> Tensor:
    """Radians per position of each channel pair, `[head_dim / 2]`."""
    channels = torch.arange(0, config.head_dim, 2).float()
    frequencies = 1.0 / config.position_embedding_base ** (channels / config.head_dim)
    if config.rope_scaling is None:
        return frequencies
    # Llama 3: channels that turn less than `low_freq_factor` times over the original context are
    # slowed down by `factor`, those above `high_freq_factor` stay, those between are blended.
    scaling = config.rope_scaling
    turns = scaling.original_max_position_embeddings * frequencies / (2 * math.pi)
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    kept = ((turns - low) / (high - low)).clamp(0.0, 1.0)
    return frequencies * (kept + (1.0 - kept) / scaling.factor)
