"""Linear layers `y = x @ w.T`, float32 or q4f32_1 weights, in MLC's row-major [N, K] layout.

- `linear` takes any number of tokens M >= 0 and chooses at run time: a GEMV per token for a few
  tokens, a register-blocked GEMM for more.
- `linear_decode` has one token, known at compile time, and is the GEMV alone.
- `embedding` looks up rows of a q4f32_1 table.

All run on TVM's thread pool with any number of threads and give the same bits for each.
"""

from __future__ import annotations

from tvm import tirx
from tvm.script import tirx as T

from ..constants import QUANT_GROUP, QUANT_PER_WORD
from ..features import CpuFeatures
from ..spec import LinearSpec
from .dequantize import quantized_embedding
from .gemm import Gemm
from .gemv import FloatGemv, QuantizedGemv
from .tiles import linear_tile
from .weight_rows import FloatRows, QuantizedRows

GEMV_MAX_TOKENS = 1
"""A GEMV per token up to here. The float32 GEMM reads the weight once however many tokens there
are, and reading it is what takes the time."""

QUANTIZED_GEMV_MAX_TOKENS = 5
"""The same for q4f32_1, where unpacking to memory costs the GEMM more than reading it again."""


def linear(spec: LinearSpec, features: CpuFeatures) -> tirx.PrimFunc:
    """`y = x @ w.T` for M tokens, M known at run time.

    Variables: x (M, K) float32; the weight, w (N, K) float32 or, quantized, q_weight (N, K / 8)
    uint32 and q_scale (N, K / 32) float32; y (M, N) float32, written.
    Computation: float32 sums; the order of the summands depends on the spec, the target and on M,
    not on the number of threads.
    """
    if spec.quantization == "q0f32":
        return _float_linear(spec, features)
    return _quantized_linear(spec, features)


def linear_decode(spec: LinearSpec, features: CpuFeatures) -> tirx.PrimFunc:
    """`linear` for M = 1, known at compile time: the same parameters, the GEMV only."""
    if spec.quantization == "q0f32":
        return _float_decode(spec, features)
    return _quantized_decode(spec, features)


def embedding(spec: LinearSpec, features: CpuFeatures) -> tirx.PrimFunc:
    """Rows of a q4f32_1 table of `spec.out_features` entries, `spec.in_features` wide.

    Variables: ids (S,) int32, each a valid row (not checked); q_weight (V, H / 8) uint32; q_scale
    (V, H / 32) float32; y (S, H) float32, written. The same code serves every vector unit.

    Raises SpecError if the spec is not quantized.
    """
    del features
    return quantized_embedding(spec)


def _float_linear(spec: LinearSpec, features: CpuFeatures) -> tirx.PrimFunc:
    n, k = T.int64(spec.out_features), T.int64(spec.in_features)
    tile = linear_tile(spec, features)

    @T.prim_func(s_tir=True)
    def linear_q0f32(x_handle: T.handle, w_handle: T.handle, y_handle: T.handle) -> None:
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
        m = T.int64()
        x = T.match_buffer(x_handle, (m, k), "float32")
        w = T.match_buffer(w_handle, (n, k), "float32")
        y = T.match_buffer(y_handle, (m, n), "float32")
        if m <= GEMV_MAX_TOKENS:
            gemv = T.meta_var(FloatGemv(spec, tile, w))
            for token in range(m):
                gemv.run(x, y, token)
        else:
            gemm = T.meta_var(Gemm(spec, tile))
            gemm.run(x, FloatRows(w), y, m)

    return linear_q0f32


def _quantized_linear(spec: LinearSpec, features: CpuFeatures) -> tirx.PrimFunc:
    n, k = T.int64(spec.out_features), T.int64(spec.in_features)
    tile = linear_tile(spec, features)

    @T.prim_func(s_tir=True)
    def linear_q4f32_1(
        x_handle: T.handle, weight_handle: T.handle, scale_handle: T.handle, y_handle: T.handle
    ) -> None:
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
        m = T.int64()
        x = T.match_buffer(x_handle, (m, k), "float32")
        q_weight = T.match_buffer(weight_handle, (n, k // QUANT_PER_WORD), "uint32")
        q_scale = T.match_buffer(scale_handle, (n, k // QUANT_GROUP), "float32")
        y = T.match_buffer(y_handle, (m, n), "float32")
        if m <= QUANTIZED_GEMV_MAX_TOKENS:
            gemv = T.meta_var(QuantizedGemv(spec, tile, q_weight, q_scale))
            for token in range(m):
                gemv.run(x, y, token)
        else:
            gemm = T.meta_var(Gemm(spec, tile))
            gemm.run(x, QuantizedRows(q_weight, q_scale), y, m)

    return linear_q4f32_1


def _float_decode(spec: LinearSpec, features: CpuFeatures) -> tirx.PrimFunc:
    n, k = T.int64(spec.out_features), T.int64(spec.in_features)
    tile = linear_tile(spec, features)

    @T.prim_func(s_tir=True)
    def linear_decode_q0f32(x_handle: T.handle, w_handle: T.handle, y_handle: T.handle) -> None:
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
        x = T.match_buffer(x_handle, (1, k), "float32")
        w = T.match_buffer(w_handle, (n, k), "float32")
        y = T.match_buffer(y_handle, (1, n), "float32")
        gemv = T.meta_var(FloatGemv(spec, tile, w))
        gemv.run(x, y, 0)

    return linear_decode_q0f32


def _quantized_decode(spec: LinearSpec, features: CpuFeatures) -> tirx.PrimFunc:
    n, k = T.int64(spec.out_features), T.int64(spec.in_features)
    tile = linear_tile(spec, features)

    @T.prim_func(s_tir=True)
    def linear_decode_q4f32_1(
        x_handle: T.handle, weight_handle: T.handle, scale_handle: T.handle, y_handle: T.handle
    ) -> None:
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
        x = T.match_buffer(x_handle, (1, k), "float32")
        q_weight = T.match_buffer(weight_handle, (n, k // QUANT_PER_WORD), "uint32")
        q_scale = T.match_buffer(scale_handle, (n, k // QUANT_GROUP), "float32")
        y = T.match_buffer(y_handle, (1, n), "float32")
        gemv = T.meta_var(QuantizedGemv(spec, tile, q_weight, q_scale))
        gemv.run(x, y, 0)

    return linear_decode_q4f32_1
