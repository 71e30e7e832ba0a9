"""A Llama small enough to recompute in NumPy, with random weights, and its model directory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from tokenizers import Tokenizer, models, pre_tokenizers

from shadowattn_tvm.config import LlamaConfig, Quantization
from shadowattn_tvm.config.chat_config import (
    CHAT_CONFIG_FILE,
    ChatConfig,
    is_quantized,
    model_dtype,
)
from shadowattn_tvm.config.conversation import Conversation
from shadowattn_tvm.weights import ModelDirectory, open_model_directory, parameter_layout
from shadowattn_tvm.weights.group_quantize import quantize_q4
from shadowattn_tvm.weights.layout import float_shapes, quantized_names
from shadowattn_tvm.weights.shard_writer import ShardWriter, count_elements

LLAMA3_SCALING = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
    "rope_type": "llama3",
}
"""With a head dim of 16 and the base below, channels fall in all three of its bands."""


def tiny_config(**overrides: Any) -> LlamaConfig:
    """Three layers, six query heads over two KV heads, a byte vocabulary."""
    settings = {
        "hidden_size": 96,
        "intermediate_size": 64,
        "num_attention_heads": 6,
        "num_key_value_heads": 2,
        "num_hidden_layers": 3,
        "head_dim": 16,
        "rms_norm_eps": 1e-5,
        "vocab_size": 256,
        "tie_word_embeddings": True,
        "position_embedding_base": 1000,
        "context_window_size": 256,
        "prefill_chunk_size": 16,
    }
    return LlamaConfig.parse({**settings, **overrides}, "tiny model")


def tiny_parameters(config: LlamaConfig) -> dict[str, NDArray[np.float32]]:
    """Random parameters with MLC's names, large enough that attention is far from uniform."""
    rng = np.random.default_rng(2508)
    return {
        name: (0.15 * rng.standard_normal(shape)).astype(np.float32)
        if len(shape) > 1
        else rng.uniform(0.5, 1.5, shape).astype(np.float32)
        for name, shape in float_shapes(config).items()
    }


def stored_parameters(config: LlamaConfig, quantization: Quantization) -> dict[str, NDArray[Any]]:
    """`tiny_parameters` as a conversion stores them."""
    dtype = model_dtype(quantization)
    stored: dict[str, NDArray[Any]] = {}
    for name, values in tiny_parameters(config).items():
        if is_quantized(quantization) and values.ndim == 2:
            stored |= zip(quantized_names(name), quantize_q4(values, dtype), strict=True)
        else:
            stored[name] = values.astype(dtype)
    return stored


def write_tiny_model(
    folder: Path,
    config: LlamaConfig,
    *,
    parameters: Mapping[str, NDArray[Any]] | None = None,
    quantization: Quantization = "q0f32",
    **conversation: Any,
) -> ModelDirectory:
    """A model directory with a tokenizer that knows the 256 bytes; `parameters` as they are stored,
    `tiny_parameters` by default."""
    with ShardWriter(folder) as writer:
        stored = tiny_parameters(config) if parameters is None else parameters
        for name, info in parameter_layout(config, quantization).items():
            writer.add(name, info, [stored[name]])
        writer.finish(count_elements(float_shapes(config).values()))
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({byte: i for i, byte in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.save(str(folder / "tokenizer.json"))
    chat_config = ChatConfig(
        type_=config.model_type,
        quantization=quantization,
        architecture=config,
        vocab_size=config.vocab_size,
        context_window_size=config.context_window_size,
        prefill_chunk_size=config.prefill_chunk_size,
        tokenizer_files=("tokenizer.json",),
        conv_template=Conversation(roles={"user": "", "assistant": ""}, seps=("",), **conversation),
    )
    (folder / CHAT_CONFIG_FILE).write_text(chat_config.to_json(), encoding="utf-8")
    return open_model_directory(folder)
