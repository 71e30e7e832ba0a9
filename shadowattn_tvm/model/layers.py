"""The layer factories of one quantization: the model asks for layers, not for formats."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from tvm.relax.frontend import nn
from tvm.relax.frontend.nn import Tensor, op

from ..errors import ConfigError
from .quantized import GroupQuantizedEmbedding, GroupQuantizedLinear
from .rows import take_rows


class Embedding(nn.Embedding):
    """A token table that can also serve as the output projection (tied embeddings)."""

    def forward(self, x: Tensor) -> Tensor:
        return take_rows(self.weight, x)

    def lm_head_forward(self, x: Tensor) -> Tensor:
        return op.matmul(x, op.permute_dims(self.weight))


class MakeLinear(Protocol):
    """`y = x @ weight.T`, plus a float32 vector if `bias`."""

    def __call__(self, in_features: int, out_features: int, *, bias: bool = False) -> nn.Module: ...


def _linear(in_features: int, out_features: int, *, bias: bool = False) -> nn.Module:
    return nn.Linear(in_features, out_features, bias=bias)


@dataclass(frozen=True)
class LayerFactory:
    """How to make the layers that hold quantizable weights.

    Attributes
    ----------
    linear : (in_features, out_features, bias=False) -> module.
    embedding : (num_rows, width) -> module with `forward` and `lm_head_forward`.
    """

    linear: MakeLinear
    embedding: Callable[[int, int], nn.Module]


LAYER_FACTORIES = {
    "q0f32": LayerFactory(linear=_linear, embedding=Embedding),
    "q4f32_1": LayerFactory(linear=GroupQuantizedLinear, embedding=GroupQuantizedEmbedding),
}


def layer_factory(quantization: str) -> LayerFactory:
    """The factory of a quantization by MLC's name. Raises `ConfigError` for an unknown one."""
    if quantization not in LAYER_FACTORIES:
        raise ConfigError(
            f"unknown quantization {quantization!r}: expected one of {', '.join(LAYER_FACTORIES)}"
        )
    return LAYER_FACTORIES[quantization]
