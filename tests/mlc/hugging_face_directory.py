"""A model directory of ours as the Hugging Face checkpoint it could have come from: what
`mlc_llm convert_weight` reads."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file
from tokenizers import Tokenizer

from shadowattn_tvm.config import LlamaConfig
from shadowattn_tvm.weights import ModelDirectory, iter_parameters


def write_hugging_face(
    directory: ModelDirectory, folder: Path, *, end_token: str | None = None
) -> Path:
    """Write `directory` (q0f32) as config.json, one safetensors file and its tokenizer, which
    learns `end_token`: our converter wants to know one that ends an answer."""
    assert directory.quantization == "q0f32"
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        name: np.ascontiguousarray(tensor)
        for fused, weights in iter_parameters(directory)
        for name, tensor in _separate(fused, weights, directory.architecture)
    }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config = _config(directory)
    (folder / "config.json").write_text(json.dumps(config), encoding="utf-8")
    for name in directory.chat_config.tokenizer_files:
        shutil.copyfile(directory.path / name, folder / name)
    if end_token is not None:
        tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        tokenizer.add_special_tokens([end_token])
        tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def _separate(
    name: str, weights: NDArray[np.float32], architecture: LlamaConfig
) -> Iterator[tuple[str, NDArray[np.float32]]]:
    """The tensors that MLC keeps as one."""
    fused = {
        architecture.fused_qkv_name: (
            ("q_proj", "k_proj", "v_proj"),
            (architecture.q_size, architecture.q_size + architecture.kv_size),
        ),
        "gate_up_proj": (("gate_proj", "up_proj"), (architecture.intermediate_size,)),
    }
    for together, (parts, boundaries) in fused.items():
        if f".{together}." in name:
            rows = np.split(weights, boundaries)
            for part, own_rows in zip(parts, rows, strict=True):
                yield name.replace(together, part), own_rows
            return
    yield name, weights


def _config(directory: ModelDirectory) -> dict[str, Any]:
    a = directory.architecture
    chat = directory.chat_config
    names = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM"}
    return {
        "architectures": [names[a.model_type]],
        "model_type": a.model_type,
        "hidden_act": "silu",
        "hidden_size": a.hidden_size,
        "intermediate_size": a.intermediate_size,
        "num_attention_heads": a.num_attention_heads,
        "num_key_value_heads": a.num_key_value_heads,
        "num_hidden_layers": a.num_hidden_layers,
        "head_dim": a.head_dim,
        "rms_norm_eps": a.rms_norm_eps,
        "vocab_size": a.vocab_size,
        "tie_word_embeddings": a.tie_word_embeddings,
        "rope_theta": a.position_embedding_base,
        "max_position_embeddings": a.context_window_size,
        "torch_dtype": "float32",
        "bos_token_id": chat.bos_token_id,
        "eos_token_id": chat.eos_token_id,
    }
