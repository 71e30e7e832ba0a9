"""The same weights in Hugging Face transformers, on torch.

An MLC model directory's parameters go back through the inverse of MLC's naming and fusing, strictly
(nothing missing, nothing left over), into a float32 model on the CPU.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
import transformers
from numpy.typing import NDArray

from ..config import LlamaConfig
from ..weights import ModelDirectory, load_parameters, open_model_directory
from ..weights.dequantize import plain_parameters
from .messages import ContenderSettings, Logits

HFModel: TypeAlias = "transformers.LlamaForCausalLM | transformers.Qwen2ForCausalLM"


class HuggingFaceModel:
    """See `text_model.TextModel`. A prompt is one forward pass with torch's fused attention, which
    gives logits of its last position only; the KV cache is the one `generate` uses by default.
    That is the fastest way through a prompt that transformers offers without compiling.
    """

    def __init__(self, settings: ContenderSettings) -> None:
        torch.set_num_threads(settings.threads)
        self._model = hf_model(open_model_directory(Path(settings.model)))
        self._cache: Any = None

    def prefill(self, token_ids: Sequence[int]) -> Logits:
        self._cache = None
        return self._after(token_ids)

    def decode(self, token_id: int) -> Logits:
        return self._after([token_id])

    def rollback(self, num_tokens: int) -> None:
        self._cache.crop(-num_tokens)

    def _after(self, token_ids: Sequence[int]) -> Logits:
        with torch.inference_mode():
            output = self._model(
                torch.tensor([list(token_ids)]),
                past_key_values=self._cache,
                use_cache=True,
                logits_to_keep=1,
            )
        self._cache = output.past_key_values
        logits: Logits = output.logits[0, -1].numpy()
        return logits


def hf_model(directory: ModelDirectory) -> HFModel:
    """A Hugging Face model of an MLC model directory, q4f32_1 weights dequantized."""
    return hf_model_of_parameters(directory.architecture, load_parameters(directory))


def hf_model_of_parameters(config: LlamaConfig, parameters: Mapping[str, NDArray[Any]]) -> HFModel:
    """A Hugging Face model of parameters with MLC's names, plain or q4f32_1."""
    family = transformers.Qwen2ForCausalLM if config.qkv_bias else transformers.LlamaForCausalLM
    model: HFModel = family(_hf_config(config)).eval().requires_grad_(False)
    unfused = _unfuse(config, dict(plain_parameters(parameters)))
    state = {name: torch.tensor(array) for name, array in unfused.items()}
    if config.tie_word_embeddings:
        state["lm_head.weight"] = state["model.embed_tokens.weight"]
    model.load_state_dict(state, strict=True)
    return model


def _hf_config(config: LlamaConfig) -> transformers.LlamaConfig | transformers.Qwen2Config:
    rope: dict[str, Any] = {"rope_type": "default"}
    if config.rope_scaling is not None:
        rope = config.rope_scaling.model_dump()
    family = transformers.Qwen2Config if config.qkv_bias else transformers.LlamaConfig
    return family(
        hidden_size=config.hidden_size,
        intermediate_size=config.intermediate_size,
        num_hidden_layers=config.num_hidden_layers,
        num_attention_heads=config.num_attention_heads,
        num_key_value_heads=config.num_key_value_heads,
        head_dim=config.head_dim,
        max_position_embeddings=config.context_window_size,
        rms_norm_eps=config.rms_norm_eps,
        rope_parameters={**rope, "rope_theta": float(config.position_embedding_base)},
        tie_word_embeddings=config.tie_word_embeddings,
        vocab_size=config.vocab_size,
        dtype=torch.float32,
        attn_implementation="sdpa",
    )


def _unfuse(
    config: LlamaConfig, parameters: Mapping[str, NDArray[np.float32]]
) -> dict[str, NDArray[np.float32]]:
    """MLC's fused projections apart again, under Hugging Face's names."""
    q, kv, ffn = config.q_size, config.kv_size, config.intermediate_size
    fused = {
        f"{config.fused_qkv_name}.{kind}": {
            f"q_proj.{kind}": q,
            f"k_proj.{kind}": kv,
            f"v_proj.{kind}": kv,
        }
        for kind in ("weight", "bias")
    } | {
        "gate_up_proj.weight": {"gate_proj.weight": ffn, "up_proj.weight": ffn},
    }
    state = {}
    for name, array in parameters.items():
        ending = next((ending for ending in fused if name.endswith(ending)), None)
        if ending is None:
            state[name] = array
            continue
        rows = fused[ending]
        assert len(array) == sum(rows.values()), f"{name}: expected {rows}, got {array.shape}"
        pieces = np.split(array, np.cumsum(list(rows.values()))[:-1])
        stem = name.removesuffix(ending)
        state |= {stem + part: piece for part, piece in zip(rows, pieces, strict=True)}
    return state
