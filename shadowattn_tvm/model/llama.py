"""The Llama family: SmolLM2, TinyLlama, Llama 2 and 3.x, Qwen2 and 2.5.

Parameter names, fused projections (`qkv_proj` or `c_attn`, `gate_up_proj`) and exported functions
are MLC's, so weights converted by either tool run in libraries compiled by either.
"""

from __future__ import annotations

from typing import Any

from tvm import te, tirx
from tvm.relax.frontend import nn
from tvm.relax.frontend.nn import Tensor, op
from tvm.relax.frontend.nn.llm.kv_cache import PagedKVCache

from ..config.architecture import LlamaConfig
from .kv_cache import create_paged_kv_cache
from .layers import LayerFactory
from .quantized import LOGITS_DTYPE
from .rows import take_rows


class LlamaFFN(nn.Module):
    """SwiGLU with gate and up projections fused into one weight."""

    def __init__(self, config: LlamaConfig, layers: LayerFactory) -> None:
        super().__init__()
        self.gate_up_proj = layers.linear(config.hidden_size, 2 * config.intermediate_size)
        self.down_proj = layers.linear(config.intermediate_size, config.hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = op.split(self.gate_up_proj(x), 2, axis=-1)
        if x.dtype == "float32":
            return self.down_proj(op.silu(gate) * up)
        activated = op.silu(gate.astype("float32")) * up.astype("float32")  # rounded only once
        return self.down_proj(activated.astype(x.dtype))


class LlamaAttention(nn.Module):
    """Grouped-query attention over the paged KV cache, which also applies the rotary embedding."""

    def __init__(self, config: LlamaConfig, layers: LayerFactory) -> None:
        super().__init__()
        self.head_dim = config.head_dim
        self.num_q_heads = config.num_attention_heads
        self.num_fused_heads = config.num_attention_heads + 2 * config.num_key_value_heads
        fused_size = self.num_fused_heads * self.head_dim
        # The attribute's name becomes the parameters', and MLC has one for each family.
        self.fused_qkv_name = config.fused_qkv_name
        fused = layers.linear(config.hidden_size, fused_size, bias=config.qkv_bias)
        setattr(self, self.fused_qkv_name, fused)
        self.o_proj = layers.linear(self.num_q_heads * self.head_dim, config.hidden_size)

    def forward(self, x: Tensor, paged_kv_cache: PagedKVCache, layer_id: int) -> Tensor:
        batch, tokens, _ = x.shape
        fused = getattr(self, self.fused_qkv_name)(x)
        qkv = op.reshape(fused, (batch, tokens, self.num_fused_heads, self.head_dim))
        attended = paged_kv_cache.attention_with_fused_qkv(
            layer_id, qkv, self.num_q_heads, sm_scale=self.head_dim**-0.5
        )
        return self.o_proj(op.reshape(attended, (batch, tokens, self.num_q_heads * self.head_dim)))


class LlamaDecoderLayer(nn.Module):
    def __init__(self, config: LlamaConfig, layers: LayerFactory) -> None:
        super().__init__()
        self.self_attn = LlamaAttention(config, layers)
        self.mlp = LlamaFFN(config, layers)
        self.input_layernorm = layers.norm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = layers.norm(config.hidden_size, config.rms_norm_eps)

    def forward(self, x: Tensor, paged_kv_cache: PagedKVCache, layer_id: int) -> Tensor:
        x = x + self.self_attn(self.input_layernorm(x), paged_kv_cache, layer_id)
        return x + self.mlp(self.post_attention_layernorm(x))


class LlamaModel(nn.Module):
    def __init__(self, config: LlamaConfig, layers: LayerFactory) -> None:
        super().__init__()
        self.embed_tokens = layers.embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(
            [LlamaDecoderLayer(config, layers) for _ in range(config.num_hidden_layers)]
        )
        self.norm = layers.norm(config.hidden_size, config.rms_norm_eps)

    def forward(self, x: Tensor, paged_kv_cache: PagedKVCache) -> Tensor:
        for layer_id, layer in enumerate(self.layers):
            x = layer(x, paged_kv_cache, layer_id)
        return self.norm(x)


class LlamaForCausalLM(nn.Module):
    """The functions of a model library; see `get_default_spec` for their shapes."""

    def __init__(self, config: LlamaConfig, layers: LayerFactory) -> None:
        super().__init__()
        self.config = config
        self.dtype = layers.dtype
        self.model = LlamaModel(config, layers)
        if not config.tie_word_embeddings:
            self.lm_head = layers.linear(
                config.hidden_size, config.vocab_size, out_dtype=LOGITS_DTYPE
            )

    def embed(self, input_ids: Tensor) -> Tensor:
        return self.model.embed_tokens(input_ids)

    def get_logits(self, hidden_states: Tensor) -> Tensor:
        if self.config.tie_word_embeddings:
            return self.model.embed_tokens.lm_head_forward(hidden_states)
        return self.lm_head(hidden_states)

    def batch_select_last_hidden_states(
        self, hidden_states: Tensor, logit_positions: Tensor
    ) -> Tensor:
        return take_rows(hidden_states, logit_positions)

    def prefill_to_last_hidden_states(
        self, input_embed: Tensor, paged_kv_cache: PagedKVCache
    ) -> tuple[Tensor, PagedKVCache]:
        return self.model(input_embed, paged_kv_cache), paged_kv_cache

    def decode_to_last_hidden_states(
        self, input_embed: Tensor, paged_kv_cache: PagedKVCache
    ) -> tuple[Tensor, PagedKVCache]:
        return self.model(input_embed, paged_kv_cache), paged_kv_cache

    def prefill(
        self, input_embed: Tensor, paged_kv_cache: PagedKVCache
    ) -> tuple[Tensor, PagedKVCache]:
        hidden = _last_token(self.model(input_embed, paged_kv_cache))
        return self.get_logits(hidden), paged_kv_cache

    def decode(
        self, input_embed: Tensor, paged_kv_cache: PagedKVCache
    ) -> tuple[Tensor, PagedKVCache]:
        return self.get_logits(self.model(input_embed, paged_kv_cache)), paged_kv_cache

    def batch_prefill(
        self, input_embeds: Tensor, logit_positions: Tensor, paged_kv_cache: PagedKVCache
    ) -> tuple[Tensor, PagedKVCache]:
        hidden = take_rows(self.model(input_embeds, paged_kv_cache), logit_positions, axis=1)
        return self.get_logits(hidden), paged_kv_cache

    def batch_decode(
        self, input_embeds: Tensor, paged_kv_cache: PagedKVCache
    ) -> tuple[Tensor, PagedKVCache]:
        return self.get_logits(self.model(input_embeds, paged_kv_cache)), paged_kv_cache

    def batch_verify(
        self, input_embeds: Tensor, paged_kv_cache: PagedKVCache
    ) -> tuple[Tensor, PagedKVCache]:
        return self.get_logits(self.model(input_embeds, paged_kv_cache)), paged_kv_cache

    def create_tir_paged_kv_cache(
        self,
        max_batch_size: tirx.Var,
        max_total_seq_len: tirx.Var,
        prefill_chunk_size: tirx.Var,
        page_size: tirx.Var,
        support_sliding_window: tirx.Var,
    ) -> PagedKVCache:
        return create_paged_kv_cache(
            self.config,
            self.dtype,
            max_batch_size,
            max_total_seq_len,
            prefill_chunk_size,
            page_size,
            support_sliding_window,
        )

    def get_default_spec(self) -> nn.spec.ModuleSpec:
        """Shapes of every exported function; batch 1 functions take (1, seq_len, hidden)."""
        hidden = self.config.hidden_size
        embeds = nn.spec.Tensor([1, "seq_len", hidden], self.dtype)
        one_embed = nn.spec.Tensor([1, 1, hidden], self.dtype)
        batch_embeds = nn.spec.Tensor(["batch_size", 1, hidden], self.dtype)
        positions = nn.spec.Tensor(["batch_size"], "int32")
        cache = nn.spec.Object(object_type=PagedKVCache)
        functions: dict[str, dict[str, Any]] = {
            "embed": {"input_ids": nn.spec.Tensor(["seq_len"], "int32")},
            "get_logits": {"hidden_states": nn.spec.Tensor(["seq_len", hidden], self.dtype)},
            "prefill": {"input_embed": embeds, "paged_kv_cache": cache},
            "decode": {"input_embed": one_embed, "paged_kv_cache": cache},
            "prefill_to_last_hidden_states": {"input_embed": embeds, "paged_kv_cache": cache},
            "decode_to_last_hidden_states": {"input_embed": one_embed, "paged_kv_cache": cache},
            "batch_prefill": {
                "input_embeds": embeds,
                "logit_positions": positions,
                "paged_kv_cache": cache,
            },
            "batch_decode": {"input_embeds": batch_embeds, "paged_kv_cache": cache},
            "batch_verify": {"input_embeds": embeds, "paged_kv_cache": cache},
        }
        without_parameters: dict[str, dict[str, Any]] = {
            "batch_select_last_hidden_states": {
                "hidden_states": nn.spec.Tensor(["seq_len", hidden], self.dtype),
                "logit_positions": positions,
            },
            "create_tir_paged_kv_cache": {
                "max_batch_size": int,
                "max_total_seq_len": int,
                "prefill_chunk_size": int,
                "page_size": int,
                "support_sliding_window": int,
            },
        }
        spec: dict[str, dict[str, Any]] = {}
        for mode, group in (("packed", functions), ("none", without_parameters)):
            for name, arguments in group.items():
                spec[name] = {**arguments, "$": {"param_mode": mode, "effect_mode": "none"}}
        return nn.spec.ModuleSpec.from_raw(spec, self)


def _last_token(hidden: Tensor) -> Tensor:
    """(batch, tokens, width) -> (batch, 1, width): the last position of each sequence."""

    def compute(x: te.Tensor) -> te.Tensor:
        batch, tokens, width = x.shape
        return te.compute((batch, 1, width), lambda b, _, d: x[b, tokens - 1, d], name="last_token")

    return op.tensor_expr_op(compute, name_hint="last_token", args=[hidden])
