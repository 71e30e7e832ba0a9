"""Which parameters a model has: MLC-LLM's names, shapes and dtypes, in MLC's order."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Literal

from tir_kernels.constants import QUANT_GROUP, QUANT_PER_WORD

from ..config.architecture import LlamaConfig
from ..config.chat_config import Quantization, is_quantized, model_dtype
from ..errors import ConfigError

StoredDtype = Literal["float32", "float16", "uint32"]

ITEM_BYTES: dict[StoredDtype, int] = {"float32": 4, "float16": 2, "uint32": 4}


@dataclass(frozen=True)
class ParameterInfo:
    """One parameter as stored: shape (row-major) and dtype."""

    shape: tuple[int, ...]
    dtype: StoredDtype

    @property
    def num_bytes(self) -> int:
        return prod(self.shape) * ITEM_BYTES[self.dtype]


def float_shapes(architecture: LlamaConfig) -> dict[str, tuple[int, ...]]:
    """Name and shape of every parameter before quantization, in MLC's order. Linear layers are
    (out_features, in_features); q, k and v share one, as do gate and up."""
    a = architecture
    fused_rows = a.q_size + 2 * a.kv_size
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (a.vocab_size, a.hidden_size)
    }
    for i in range(a.num_hidden_layers):
        layer = f"model.layers.{i}"
        shapes |= {
            f"{layer}.self_attn.{a.fused_qkv_name}.weight": (fused_rows, a.hidden_size),
            **({f"{layer}.self_attn.{a.fused_qkv_name}.bias": (fused_rows,)} if a.qkv_bias else {}),
            f"{layer}.self_attn.o_proj.weight": (a.hidden_size, a.q_size),
            f"{layer}.mlp.gate_up_proj.weight": (2 * a.intermediate_size, a.hidden_size),
            f"{layer}.mlp.down_proj.weight": (a.hidden_size, a.intermediate_size),
            f"{layer}.input_layernorm.weight": (a.hidden_size,),
            f"{layer}.post_attention_layernorm.weight": (a.hidden_size,),
        }
    shapes["model.norm.weight"] = (a.hidden_size,)
    if not a.tie_word_embeddings:
        shapes["lm_head.weight"] = (a.vocab_size, a.hidden_size)
    return shapes


def parameter_layout(
    architecture: LlamaConfig, quantization: Quantization
) -> dict[str, ParameterInfo]:
    """Name, shape and dtype of every stored parameter, in MLC's order.

    With q4f32_1 every matrix (N, K) becomes `q_weight` (N, K / 8) uint32 and `q_scale` (N, K / 32)
    float32; the vectors of norms and biases stay float32. With q0f16 and q4f16_1, all that would be
    float32 is float16. Raises `ConfigError` if K is not a multiple of 32.
    """
    return {
        name: info
        for float_name, shape in float_shapes(architecture).items()
        for name, info in _stored(float_name, shape, quantization)
    }


def quantized_names(name: str) -> tuple[str, str]:
    """MLC's names for the two parts of a quantized parameter: `q_weight`, `q_scale`."""
    stem = name.removesuffix(".weight")
    return f"{stem}.q_weight", f"{stem}.q_scale"


def _stored(
    name: str, shape: tuple[int, ...], quantization: Quantization
) -> Iterator[tuple[str, ParameterInfo]]:
    dtype = model_dtype(quantization)
    if not is_quantized(quantization) or len(shape) == 1:
        yield name, ParameterInfo(shape, dtype)
        return
    rows, columns = shape
    if columns % QUANT_GROUP != 0:
        raise ConfigError(
            f"{name}: {quantization} needs rows of a multiple of {QUANT_GROUP} weights, got "
            f"{columns}; use {quantization.replace('q4', 'q0').removesuffix('_1')} for this model"
        )
    weight_name, scale_name = quantized_names(name)
    yield weight_name, ParameterInfo((rows, columns // QUANT_PER_WORD), "uint32")
    yield scale_name, ParameterInfo((rows, columns // QUANT_GROUP), dtype)
