"""Tiny Llama-family checkpoints, made from a seed: as tensors, as GGUF, as Hugging Face folders."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

SPECIAL_TOKENS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
MERGES = (("Ġ", "t"), ("h", "e"), ("Ġt", "he"), ("i", "n"), ("Ġ", "a"), ("a", "n"))
CHAT_TEMPLATE = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + "
    "'<|im_end|>' + '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}"
    "{% endif %}"
)

Weights = dict[str, NDArray[np.float32]]


def byte_level_vocabulary() -> list[str]:
    """The special tokens, the 256 byte letters, the merged pieces."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    return [*SPECIAL_TOKENS, *letters, *(left + right for left, right in MERGES)]


@dataclass(frozen=True)
class Tiny:
    """A model's shape; every width a multiple of 32, so that it can be quantized."""

    hidden: int = 64
    intermediate: int = 96
    heads: int = 4
    kv_heads: int = 2
    head_dim: int = 16
    layers: int = 2
    vocab: int = 272
    context: int = 512
    tied: bool = True

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Every tensor, by Hugging Face name, written out by hand."""
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        shapes: dict[str, tuple[int, ...]] = {
            "model.embed_tokens.weight": (self.vocab, self.hidden)
        }
        for i in range(self.layers):
            layer = f"model.layers.{i}"
            shapes[f"{layer}.self_attn.q_proj.weight"] = (q, self.hidden)
            shapes[f"{layer}.self_attn.k_proj.weight"] = (kv, self.hidden)
            shapes[f"{layer}.self_attn.v_proj.weight"] = (kv, self.hidden)
            shapes[f"{layer}.self_attn.o_proj.weight"] = (self.hidden, q)
            shapes[f"{layer}.mlp.gate_proj.weight"] = (self.intermediate, self.hidden)
            shapes[f"{layer}.mlp.up_proj.weight"] = (self.intermediate, self.hidden)
            shapes[f"{layer}.mlp.down_proj.weight"] = (self.hidden, self.intermediate)
            shapes[f"{layer}.input_layernorm.weight"] = (self.hidden,)
            shapes[f"{layer}.post_attention_layernorm.weight"] = (self.hidden,)
        shapes["model.norm.weight"] = (self.hidden,)
        if not self.tied:
            shapes["lm_head.weight"] = (self.vocab, self.hidden)
        return shapes

    def weights(self, seed: int = 0) -> Weights:
        rng = np.random.default_rng(seed)
        return {
            name: rng.standard_normal(shape, dtype=np.float32)
            for name, shape in self.shapes().items()
        }

    def hf_config(self) -> dict[str, Any]:
        return {
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_act": "silu",
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
            "num_attention_heads": self.heads,
            "num_key_value_heads": self.kv_heads,
            "head_dim": self.head_dim,
            "num_hidden_layers": self.layers,
            "vocab_size": self.vocab,
            "rms_norm_eps": 1e-5,
            "max_position_embeddings": self.context,
            "rope_theta": 10000.0,
            "tie_word_embeddings": self.tied,
            "bos_token_id": 1,
            "eos_token_id": 2,
        }

    def gguf_metadata(self) -> dict[str, Any]:
        tokens = byte_level_vocabulary()
        control, normal = 3, 1
        types = [control if token in SPECIAL_TOKENS else normal for token in tokens]
        return {
            "general.architecture": "llama",
            "llama.block_count": self.layers,
            "llama.context_length": self.context,
            "llama.embedding_length": self.hidden,
            "llama.feed_forward_length": self.intermediate,
            "llama.attention.head_count": self.heads,
            "llama.attention.head_count_kv": self.kv_heads,
            "llama.attention.key_length": self.head_dim,
            "llama.attention.layer_norm_rms_epsilon": 1e-5,
            "llama.rope.freq_base": 10000.0,
            "llama.rope.dimension_count": self.head_dim,
            "llama.vocab_size": self.vocab,
            "tokenizer.ggml.model": "gpt2",
            "tokenizer.ggml.pre": "smollm",
            "tokenizer.ggml.tokens": tokens,
            "tokenizer.ggml.token_type": types,
            "tokenizer.ggml.merges": [" ".join(merge) for merge in MERGES],
            "tokenizer.ggml.bos_token_id": 1,
            "tokenizer.ggml.eos_token_id": 2,
            "tokenizer.ggml.padding_token_id": 2,
            "tokenizer.chat_template": CHAT_TEMPLATE,
        }


_GGUF_LAYER_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
_GGUF_MODEL_NAMES = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}


def gguf_name(name: str) -> str:
    """llama.cpp's name of a tensor."""
    if name in _GGUF_MODEL_NAMES:
        return _GGUF_MODEL_NAMES[name]
    _, _, layer, *kind, suffix = name.split(".")
    return f"blk.{layer}.{_GGUF_LAYER_NAMES['.'.join(kind)]}.{suffix}"


def interleave(rows: NDArray[np.float32], head_dim: int) -> NDArray[np.float32]:
    """llama.cpp's order of query and key rows, row by row: the partners of a rotary pair, half a
    head apart in Hugging Face's order, lie side by side."""
    out = np.empty_like(rows)
    half = head_dim // 2
    for head in range(len(rows) // head_dim):
        first = head * head_dim
        for pair in range(half):
            out[first + 2 * pair] = rows[first + pair]
            out[first + 2 * pair + 1] = rows[first + half + pair]
    return out


def write_gguf(
    path: Path,
    model: Tiny,
    weights: Mapping[str, NDArray[np.float32]],
    *,
    metadata: Mapping[str, Any] | None = None,
    matrix_type: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.F32,
    extra_tensors: Mapping[str, NDArray[np.float32]] | None = None,
) -> Path:
    """Write a GGUF file as llama.cpp's converter does: Q and K rows interleaved, matrices in
    `matrix_type`, vectors in float32. `metadata` replaces keys; None takes one away."""
    writer = gguf.GGUFWriter(path, "llama")
    merged = {**model.gguf_metadata(), **(metadata or {})}
    writer.kv_data[0].pop("general.architecture")
    for key, value in merged.items():
        _add(writer, key, value)
    for name, tensor in weights.items():
        rows = tensor
        if name.endswith(("q_proj.weight", "k_proj.weight")):
            rows = interleave(tensor, model.head_dim)
        if tensor.ndim == 1:
            writer.add_tensor(gguf_name(name), rows)
        else:
            stored = gguf.quants.quantize(rows, matrix_type)
            writer.add_tensor(gguf_name(name), stored, raw_dtype=matrix_type)
    for name, tensor in (extra_tensors or {}).items():
        writer.add_tensor(name, tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    if value is None:
        return
    if isinstance(value, bool):
        writer.add_bool(key, value)
    elif isinstance(value, int):
        writer.add_uint32(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    elif isinstance(value, str):
        writer.add_string(key, value)
    else:
        writer.add_array(key, value)


def byte_level_tokenizer() -> Tokenizer:
    """The tiny vocabulary as a tokenizer, built with the library's own classes."""
    vocab = {token: i for i, token in enumerate(byte_level_vocabulary())}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=list(MERGES)))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL_TOKENS))
    return tokenizer


def write_hugging_face(
    folder: Path,
    model: Tiny,
    weights: Mapping[str, NDArray[Any]],
    *,
    config: Mapping[str, Any] | None = None,
    num_shards: int = 1,
) -> Path:
    """Write a Hugging Face checkpoint; `config` replaces keys of config.json, and more than one
    shard brings an index."""
    folder.mkdir(parents=True, exist_ok=True)
    content = {**model.hf_config(), **(config or {})}
    (folder / "config.json").write_text(json.dumps(content))
    byte_level_tokenizer().save(str(folder / "tokenizer.json"))
    (folder / "tokenizer_config.json").write_text(json.dumps({"chat_template": CHAT_TEMPLATE}))
    if num_shards == 1:
        save_file(dict(weights), folder / "model.safetensors")
        return folder
    weight_map = {}
    for shard in range(num_shards):
        file = f"model-{shard + 1:05d}-of-{num_shards:05d}.safetensors"
        part = {name: w for i, (name, w) in enumerate(weights.items()) if i % num_shards == shard}
        save_file(part, folder / file)
        weight_map |= dict.fromkeys(part, file)
    index = {"metadata": {}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


def expected_parameters(model: Tiny, weights: Mapping[str, NDArray[Any]]) -> Weights:
    """MLC's parameters of those weights, float32: q, k, v fused, gate and up fused."""
    out: Weights = {}
    for name, tensor in weights.items():
        if ".q_proj." in name:
            parts = [weights[name.replace("q_proj", p)] for p in ("q_proj", "k_proj", "v_proj")]
            out[name.replace("q_proj", "qkv_proj")] = np.concatenate(parts).astype(np.float32)
        elif ".gate_proj." in name:
            parts = [tensor, weights[name.replace("gate_proj", "up_proj")]]
            out[name.replace("gate_proj", "gate_up_proj")] = np.concatenate(parts).astype("f4")
        elif not any(part in name for part in (".k_proj.", ".v_proj.", ".up_proj.")):
            out[name] = tensor.astype(np.float32)
    return out
