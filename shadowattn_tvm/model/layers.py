"""The layer factory of one quantization: the model asks for layers, not for formats."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

from tvm.relax.frontend import nn
from tvm.relax.frontend.nn import Tensor, op

from ..config.chat_config import (
    QUANTIZATIONS,
    ModelDtype,
    Quantization,
    is_quantized,
    model_dtype,
)
from ..errors import ConfigError
from .quantized import LOGITS_DTYPE, GroupQuantizedEmbedding, GroupQuantizedLinear
from .rows import take_rows


class Embedding(nn.Embedding):
    """A token table that can also serve as the output projection (tied embeddings)."""

    def forward(self, x: Tensor) -> Tensor:
        return take_rows(self.weight, x)

    def lm_head_forward(self, x: Tensor) -> Tensor:
        return op.matmul(x, op.permute_dims(self.weight), out_dtype=LOGITS_DTYPE)


@dataclass(frozen=True)
class LayerFactory:
    """Makes the layers that hold weights.

    Attributes
    ----------
    dtype : of activations, and of all weights but 4-bit words.
    quantized : whether matrices are 4-bit words and scales.
    """

    dtype: ModelDtype
    quantized: bool

    def linear(
        self,
        in_features: int,
        out_features: int,
        *,
        bias: bool = False,
        out_dtype: str | None = None,
    ) -> nn.Module:
        """`y = x @ weight.T`, plus a vector if `bias`; y of `out_dtype`, by default as x."""
        kind = GroupQuantizedLinear if self.quantized else nn.Linear
        return kind(in_features, out_features, bias=bias, dtype=self.dtype, out_dtype=out_dtype)

    def embedding(self, num_rows: int, width: int) -> nn.Module:
        """A table with `forward` (rows by id) and `lm_head_forward` (float32 logits)."""
        kind = GroupQuantizedEmbedding if self.quantized else Embedding
        return kind(num_rows, width, dtype=self.dtype)

    def norm(self, width: int, epsilon: float) -> nn.Module:
        """RMS norm over the last axis, computed in float32."""
        return nn.RMSNorm(width, -1, epsilon, bias=False, dtype=self.dtype)


def layer_factory(quantization: str) -> LayerFactory:
    """The factory of a quantization by MLC's name. Raises `ConfigError` for an unknown one."""
    if quantization not in QUANTIZATIONS:
        raise ConfigError(
            f"unknown quantization {quantization!r}: expected one of {', '.join(QUANTIZATIONS)}"
        )
    known = cast(Quantization, quantization)
    return LayerFactory(model_dtype(known), is_quantized(known))
