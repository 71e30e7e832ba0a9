"""A GGUF file as a checkpoint: llama.cpp's names, its interleaved query and key rows and its way
of storing Llama 3's rotary scaling, undone."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from ..config.architecture import LlamaConfig
from ..config.hugging_face import DEFAULT_ROPE_BASE, SUPPORTED, ModelType
from ..errors import ConfigError, WeightsError
from .checkpoint import GenerationDefaults
from .gguf_file import GgufFile, GgufTensor, open_gguf
from .gguf_tokenizer import build_tokenizer

_MODEL_NAMES = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}

_LAYER_NAMES = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "attn_norm": "input_layernorm",
    "ffn_norm": "post_attention_layernorm",
}

_ROPE_FREQS = "rope_freqs.weight"

_LLAMA3_BANDS = {
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
"""What every Llama 3.1 and 3.2 model was trained with; the file stores only the result."""

_ROPE_TOLERANCE = 1e-4


class GgufCheckpoint:
    """See `checkpoint.Checkpoint`. Opening checks the header; tensors are read when asked for."""

    def __init__(self, path: Path) -> None:
        file = open_gguf(path)
        self._file = file
        self._tensors = {
            _hugging_face_name(name): tensor
            for name, tensor in file.tensors.items()
            if name != _ROPE_FREQS
        }
        self._architecture = architecture_of(file)

    @property
    def architecture(self) -> LlamaConfig:
        return self._architecture

    @cached_property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        return {name: tensor.shape for name, tensor in self._tensors.items()}

    @property
    def generation(self) -> GenerationDefaults:
        def token_id(name: str) -> int | None:
            value = self._file.metadata.get(f"tokenizer.ggml.{name}_token_id")
            return value if isinstance(value, int) else None

        template = self._file.metadata.get("tokenizer.chat_template")
        return GenerationDefaults(
            bos_token_id=token_id("bos"),
            eos_token_id=token_id("eos"),
            pad_token_id=token_id("padding"),
            chat_template=template if isinstance(template, str) else None,
            sampling={},
        )

    def read_rows(self, name: str, start: int, stop: int) -> NDArray[np.float32]:
        rows = self._tensors[name].rows(start, stop)
        # llama.cpp leaves the rows of Qwen2 in Hugging Face's order.
        interleaved = self._architecture.model_type == "llama"
        if interleaved and name.endswith((".q_proj.weight", ".k_proj.weight")):
            return deinterleave(rows, self._architecture.head_dim)
        return rows

    def write_tokenizer(self, folder: Path) -> None:
        tokenizer, config = build_tokenizer(self._file.metadata, str(self._file.path))
        for name, content in (("tokenizer.json", tokenizer), ("tokenizer_config.json", config)):
            text = json.dumps(content, ensure_ascii=False)  # indenting 100k lines takes seconds
            (folder / name).write_text(text, encoding="utf-8")


def deinterleave(rows: NDArray[np.float32], head_dim: int) -> NDArray[np.float32]:
    """Rows (heads * head_dim, K) from llama.cpp's order within each head, where the two halves of
    the rotary pairs alternate, to Hugging Face's, where one half follows the other."""
    num_rows, columns = rows.shape
    pairs = rows.reshape(num_rows // head_dim, head_dim // 2, 2, columns)
    return pairs.swapaxes(1, 2).reshape(num_rows, columns)


def architecture_of(file: GgufFile) -> LlamaConfig:
    """The model's shape, from the metadata. Raises `ConfigError` naming what we don't run and what
    is missing or malformed; `WeightsError` for a part of a split file."""
    data, where = file.metadata, str(file.path)
    if data.get("split.count", 0) not in (0, 1):
        raise WeightsError(
            f"{where}: expected a whole model, got one of {data['split.count']} parts; merge them "
            "with llama.cpp's `llama-gguf-split --merge`"
        )
    name = data.get("general.architecture")
    if not isinstance(name, str) or name not in get_args(ModelType):
        raise ConfigError(
            f"{where}: general.architecture: expected 'llama' or 'qwen2', got {name!r}; supported: "
            f"{SUPPORTED}"
        )
    hidden, heads = data.get(f"{name}.embedding_length"), data.get(f"{name}.attention.head_count")
    head_dim = data.get(f"{name}.attention.key_length")
    if head_dim is None and isinstance(hidden, int) and isinstance(heads, int) and heads > 0:
        head_dim = hidden // heads
    _refuse_unsupported(data, name, head_dim, where)
    vocab = data.get(f"{name}.vocab_size")
    if vocab is None and "token_embd.weight" in file.tensors:
        vocab = file.tensors["token_embd.weight"].shape[0]
    base = _decimal(data.get(f"{name}.rope.freq_base", DEFAULT_ROPE_BASE))
    mapped = {
        "hidden_size": hidden,
        "intermediate_size": data.get(f"{name}.feed_forward_length"),
        "num_attention_heads": heads,
        "num_key_value_heads": data.get(f"{name}.attention.head_count_kv", heads),
        "head_dim": head_dim,
        "num_hidden_layers": data.get(f"{name}.block_count"),
        "rms_norm_eps": _decimal(data.get(f"{name}.attention.layer_norm_rms_epsilon")),
        "vocab_size": vocab,
        "tie_word_embeddings": "output.weight" not in file.tensors,
        "position_embedding_base": base,
        "rope_scaling": _rope_scaling(file.tensors.get(_ROPE_FREQS), base, head_dim, where),
        "qkv_bias": name == "qwen2",
        "context_window_size": data.get(f"{name}.context_length"),
        "prefill_chunk_size": data.get(f"{name}.context_length"),
    }
    present = {key: value for key, value in mapped.items() if value is not None}
    return LlamaConfig.parse(present, where)


def _refuse_unsupported(data: Mapping[str, Any], name: str, head_dim: Any, where: str) -> None:
    rotated = data.get(f"{name}.rope.dimension_count", head_dim)
    checks = (
        (f"{name}.expert_count", "mixture of experts", data.get(f"{name}.expert_count", 0) == 0),
        (
            f"{name}.attention.sliding_window",
            "sliding-window attention",
            data.get(f"{name}.attention.sliding_window", 0) == 0,
        ),
        (
            f"{name}.attention.value_length",
            "values of another width than keys",
            data.get(f"{name}.attention.value_length", head_dim) == head_dim,
        ),
        (f"{name}.rope.dimension_count", "partial rotary embedding", rotated == head_dim),
        (
            f"{name}.rope.scaling.type",
            "rotary scaling other than Llama 3's",
            data.get(f"{name}.rope.scaling.type", "none") == "none",
        ),
    )
    problems = [
        f"{key}: no support for {feature}, got {str(data.get(key))[:60]}"
        for key, feature, fine in checks
        if not fine
    ]
    if problems:
        raise ConfigError("\n  ".join([f"{where}: this model can't run here", *problems]))


def _rope_scaling(
    freqs: GgufTensor | None, base: Any, head_dim: Any, where: str
) -> dict[str, Any] | None:
    """Llama 3's scaling from the divisors llama.cpp stores per rotary pair, checked against all of
    them. Raises `ConfigError` if they are of another kind."""
    if freqs is None or not isinstance(base, int | float) or not isinstance(head_dim, int):
        return None
    divisors = freqs.rows(0, freqs.shape[0])
    if np.all(divisors == 1.0):
        return None
    scaling = {"factor": float(divisors.max()), **_LLAMA3_BANDS, "rope_type": "llama3"}
    expected = _llama3_divisors(scaling, base, head_dim)
    if divisors.shape != expected.shape or not np.allclose(divisors, expected, _ROPE_TOLERANCE):
        raise ConfigError(
            f"{where}: {_ROPE_FREQS}: expected Llama 3's rotary scaling (frequency bands 1 and 4, "
            "8192 tokens of original context), got other divisors; convert this model from its "
            "Hugging Face checkpoint"
        )
    return scaling


def _llama3_divisors(scaling: Mapping[str, Any], base: float, head_dim: int) -> NDArray[np.float64]:
    """What Llama 3 divides each rotary frequency by, (head_dim / 2,): 1 for short wavelengths, the
    factor for long ones, between them interpolated in the frequency."""
    frequency = base ** (-np.arange(0, head_dim, 2) / head_dim)
    turns = scaling["original_max_position_embeddings"] * frequency / (2 * math.pi)
    low, high = scaling["low_freq_factor"], scaling["high_freq_factor"]
    kept = np.clip((turns - low) / (high - low), 0.0, 1.0)
    divisors: NDArray[np.float64] = 1.0 / ((1.0 - kept) / scaling["factor"] + kept)
    return divisors


def _hugging_face_name(name: str) -> str:
    """llama.cpp's tensor name in Hugging Face's words; unknown names stay, to be reported."""
    if name in _MODEL_NAMES:
        return _MODEL_NAMES[name]
    block, _, rest = name.removeprefix("blk.").partition(".")
    kind, _, suffix = rest.partition(".")
    if name.startswith("blk.") and kind in _LAYER_NAMES:
        return f"model.layers.{block}.{_LAYER_NAMES[kind]}.{suffix}"
    return name


def _decimal(value: Any) -> Any:
    """A float32 as the shortest decimal that is the same float32: what its maker wrote."""
    return float(str(np.float32(value))) if isinstance(value, float) else value
