"""Linear and embedding layers over MLC's group-quantized weights.

Both spell out "dequantize the whole weight, then multiply (or take rows)". Nothing runs that way:
`DispatchLinear` recognizes the pattern by the name `dequantize` and puts a fused kernel there,
just as it will in modules that come from MLC-LLM, which are spelled the same.
"""

from __future__ import annotations

from tvm import te, tirx
from tvm.relax.frontend import nn
from tvm.relax.frontend.nn import Tensor, op

from tir_kernels.constants import QUANT_GROUP, QUANT_PER_WORD, QUANT_ZERO_POINT

from ..config.chat_config import ModelDtype
from .rows import take_rows

LOGITS_DTYPE = "float32"
"""Whatever the model's: the engine and sampling expect it."""

_BITS = 32 // QUANT_PER_WORD
_NIBBLE_MASK = (1 << _BITS) - 1


def dequantize(q_weight: Tensor, q_scale: Tensor) -> Tensor:
    """q_weight (N, K/8) uint32, q_scale (N, K/32) -> (N, K), in the dtype of the scales (MLC's
    q4f32_1 and q4f16_1)."""

    def compute(words: te.Tensor, scales: te.Tensor) -> te.Tensor:
        rows, num_words = words.shape

        def element(n: tirx.Var, k: tirx.Var) -> tirx.Expr:
            word = words[n, k // QUANT_PER_WORD]
            shift = ((k % QUANT_PER_WORD) * _BITS).astype("uint32")
            nibble = tirx.bitwise_and(word >> shift, tirx.const(_NIBBLE_MASK, "uint32"))
            centred = nibble.astype(scales.dtype) - tirx.const(QUANT_ZERO_POINT, scales.dtype)
            return centred * scales[n, k // QUANT_GROUP]

        return te.compute((rows, num_words * QUANT_PER_WORD), element, name="dequantize")

    return op.tensor_expr_op(compute, name_hint="dequantize", args=[q_weight, q_scale])


class GroupQuantizedLinear(nn.Module):
    """`y = x @ dequantize(q_weight, q_scale).T`, plus a vector if `bias`; see
    `layers.LayerFactory`."""

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        bias: bool = False,
        dtype: ModelDtype = "float32",
        out_dtype: str | None = None,
    ) -> None:
        super().__init__()
        self.q_weight = nn.Parameter((out_features, in_features // QUANT_PER_WORD), "uint32")
        self.q_scale = nn.Parameter((out_features, in_features // QUANT_GROUP), dtype)
        self.bias = nn.Parameter((out_features,), out_dtype or dtype) if bias else None
        self.out_dtype = out_dtype

    def forward(self, x: Tensor) -> Tensor:
        weight = op.permute_dims(dequantize(self.q_weight, self.q_scale))
        product = op.matmul(x, weight, out_dtype=self.out_dtype)
        return product if self.bias is None else op.add(product, self.bias)


class GroupQuantizedEmbedding(nn.Module):
    """Rows of a quantized table, and the tied output projection over the same table."""

    def __init__(self, num_rows: int, width: int, *, dtype: ModelDtype = "float32") -> None:
        super().__init__()
        self.q_weight = nn.Parameter((num_rows, width // QUANT_PER_WORD), "uint32")
        self.q_scale = nn.Parameter((num_rows, width // QUANT_GROUP), dtype)

    def forward(self, ids: Tensor) -> Tensor:
        return take_rows(dequantize(self.q_weight, self.q_scale), ids)

    def lm_head_forward(self, x: Tensor) -> Tensor:
        weight = op.permute_dims(dequantize(self.q_weight, self.q_scale))
        return op.matmul(x, weight, out_dtype=LOGITS_DTYPE)
