"""Linear layers `y = x @ w.T`, plain or 4-bit weights, in MLC's row-major [N, K] layout.

- `linear` takes any number of tokens M >= 0 and chooses at run time: a GEMV per token for a few
  tokens, a register-blocked GEMM for more.
- `linear_decode` has one token, known at compile time, and is the GEMV alone.
- `embedding` looks up rows of a 4-bit table.

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
from .weight_rows import QuantizedRows, plain_rows

GEMV_MAX_TOKENS = 1
"""A GEMV per token up to here. The float32 GEMM reads the weight once however many tokens there
are, and reading it is what takes the time."""

QUANTIZED_GEMV_MAX_TOKENS = 5
"""The same for 4-bit weights: unpacking to memory costs the GEMM more than reading them again."""


def linear(spec: LinearSpec, features: CpuFeatures) -> tirx.PrimFunc:
    """`y = x @ w.T` for M tokens, M known at run time.

    Variables: x (M, K); the weight, w (N, K) or, quantized, q_weight (N, K / 8) uint32 and q_scale
    (N, K / 32); all of the spec's dtype but for y (M, N), of its output dtype, written.
    Computation: float32 sums; the order of the summands depends on the spec, the target and on M,
    not on the number of threads.
    """
    if not spec.quantized:
        return _float_linear(spec, features)
    return _quantized_linear(spec, features)


def linear_decode(spec: LinearSpec, features: CpuFeatures) -> tirx.PrimFunc:
    """`linear` for M = 1, known at compile time: the same parameters, the GEMV only."""
    if not spec.quantized:
        return _float_decode(spec, features)
    return _quantized_decode(spec, features)


def embedding(spec: LinearSpec, features: CpuFeatures) -> tirx.PrimFunc:
    """Rows of a 4-bit table of `spec.out_features` entries, `spec.in_features` wide.

    Variables: ids (S,) int32, each a valid row (not checked); q_weight (V, H / 8) uint32; q_scale
    (V, H / 32) and y (S, H), dtype of the spec; y is written. The same code serves every vector
    unit.

    Raises SpecError if the spec is not quantized.
    """
    del features
    return quantized_embedding(spec)


def _float_linear(spec: LinearSpec, features: CpuFeatures) -> tirx.PrimFunc:
    n, k = T.int64(spec.out_features), T.int64(spec.in_features)
    tile = linear_tile(spec, features)

    @T.prim_func(s_tir=True)
    def linear_plain(x_handle: T.handle, w_handle: T.handle, y_handle: T.handle) -> None:
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
        m = T.int64()
        x = T.match_buffer(x_handle, (m, k), spec.dtype)
        w = T.match_buffer(w_handle, (n, k), spec.dtype)
        y = T.match_buffer(y_handle, (m, n), spec.output_dtype)
        if m <= GEMV_MAX_TOKENS:
            gemv = T.meta_var(FloatGemv(spec, tile, w))
            for token in range(m):
                gemv.run(x, y, token)
        else:
            gemm = T.meta_var(Gemm(spec, tile))
            gemm.run(x, plain_rows(spec, w, tile.lanes), y, m)

    return linear_plain


def _quantized_linear(spec: LinearSpec, features: CpuFeatures) -> tirx.PrimFunc:
    n, k = T.int64(spec.out_features), T.int64(spec.in_features)
    tile = linear_tile(spec, features)

    @T.prim_func(s_tir=True)
    def linear_quantized(
        x_handle: T.handle, weight_handle: T.handle, scale_handle: T.handle, y_handle: T.handle
    ) -> None:
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
        m = T.int64()
        x = T.match_buffer(x_handle, (m, k), spec.dtype)
        q_weight = T.match_buffer(weight_handle, (n, k // QUANT_PER_WORD), "uint32")
        q_scale = T.match_buffer(scale_handle, (n, k // QUANT_GROUP), spec.dtype)
        y = T.match_buffer(y_handle, (m, n), spec.output_dtype)
        if m <= QUANTIZED_GEMV_MAX_TOKENS:
            gemv = T.meta_var(QuantizedGemv(spec, tile, q_weight, q_scale))
            for token in range(m):
                gemv.run(x, y, token)
        else:
            gemm = T.meta_var(Gemm(spec, tile))
            gemm.run(x, QuantizedRows(q_weight, q_scale), y, m)

    return linear_quantized


def _float_decode(spec: LinearSpec, features: CpuFeatures) -> tirx.PrimFunc:
    n, k = T.int64(spec.out_features), T.int64(spec.in_features)
    tile = linear_tile(spec, features)

    @T.prim_func(s_tir=True)
    def linear_decode_plain(x_handle: T.handle, w_handle: T.handle, y_handle: T.handle) -> None:
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
        x = T.match_buffer(x_handle, (1, k), spec.dtype)
        w = T.match_buffer(w_handle, (n, k), spec.dtype)
        y = T.match_buffer(y_handle, (1, n), spec.output_dtype)
        gemv = T.meta_var(FloatGemv(spec, tile, w))
        gemv.run(x, y, 0)

    return linear_decode_plain


def _quantized_decode(spec: LinearSpec, features: CpuFeatures) -> tirx.PrimFunc:
    n, k = T.int64(spec.out_features), T.int64(spec.in_features)
    tile = linear_tile(spec, features)

    @T.prim_func(s_tir=True)
    def linear_decode_quantized(
        x_handle: T.handle, weight_handle: T.handle, scale_handle: T.handle, y_handle: T.handle
    ) -> None:
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
        x = T.match_buffer(x_handle, (1, k), spec.dtype)
        q_weight = T.match_buffer(weight_handle, (n, k // QUANT_PER_WORD), "uint32")
        q_scale = T.match_buffer(scale_handle, (n, k // QUANT_GROUP), spec.dtype)
        y = T.match_buffer(y_handle, (1, n), spec.output_dtype)
        gemv = T.meta_var(QuantizedGemv(spec, tile, q_weight, q_scale))
        gemv.run(x, y, 0)

    return linear_decode_quantized
