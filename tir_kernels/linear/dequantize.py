"""q4f32_1 and q4f16_1 back to float: whole words, runs of a row, the quantized embedding table.

A word holds eight weights of a row, the first in the lowest four bits; four words share a scale.
`weight = (nibble - 7) * scale` in float32, one rounding (none with float16 scales), so every kernel
and the NumPy twin agree to the bit.

Source: MLC-LLM's q4f32_1 and q4f16_1 (mlc_llm/quantization/group_quantization.py).
"""

from __future__ import annotations

from tvm import tirx
from tvm.script import tirx as T

from ..constants import QUANT_GROUP, QUANT_PER_WORD, QUANT_ZERO_POINT
from ..simd.storage import as_float32, as_stored
from ..simd.vector import Expr, splat
from ..spec import LinearSpec, SpecError

NIBBLE_BITS = 4
NIBBLE_MASK = (1 << NIBBLE_BITS) - 1
WORDS_PER_GROUP = QUANT_GROUP // QUANT_PER_WORD


def unpack_word(word: Expr, scale: Expr) -> Expr:
    """The eight weights of a uint32 word, float32x8."""
    lanes = QUANT_PER_WORD
    shifted = T.shift_right(splat(word, lanes), T.ramp(T.uint32(0), T.uint32(NIBBLE_BITS), lanes))
    nibbles = T.bitwise_and(shifted, splat(T.uint32(NIBBLE_MASK), lanes))
    centred = T.Cast(f"int32x{lanes}", nibbles) - splat(T.int32(QUANT_ZERO_POINT), lanes)
    return T.Cast(f"float32x{lanes}", centred) * splat(scale, lanes)


@T.inline
def dequantize_run(
    q_weight: T.Buffer,
    q_scale: T.Buffer,
    row: Expr,
    first_group: Expr,
    num_groups: Expr,
    out: T.Buffer,
    out_row: Expr,
) -> None:
    """Groups `first_group : first_group + num_groups` of a row, from `out[out_row, 0]` on.

    q_weight (rows, K / 8) uint32; q_scale (rows, K / 32) and out (.., ..) float32 or float16.
    """
    for group in range(num_groups):
        scale = T.bind(as_float32(q_scale[row, first_group + group]))
        for word in T.unroll(WORDS_PER_GROUP):
            weights = T.meta_var(
                unpack_word(q_weight[row, (first_group + group) * WORDS_PER_GROUP + word], scale)
            )
            out[out_row, T.ramp(group * QUANT_GROUP + word * QUANT_PER_WORD, 1, QUANT_PER_WORD)] = (
                as_stored(weights, out.dtype)
            )


def quantized_embedding(spec: LinearSpec) -> tirx.PrimFunc:
    """Rows of a 4-bit table [vocabulary, hidden] (`out_features`, `in_features` of the spec).

    Variables: ids (S,) int32, each in 0..vocabulary-1 (not checked); q_weight (V, H / 8) uint32;
    q_scale (V, H / 32) and y (S, H), dtype of the spec; y is written.
    Computation: `y[s] = (nibbles of row ids[s] - 7) * scale`. Serial: a chunk of 128 tokens takes
    a few microseconds, as much as waking another thread.

    Raises SpecError if the spec is not quantized.
    """
    if not spec.quantized:
        raise SpecError(f"expected a 4-bit embedding table, got {spec.quantization}")
    vocabulary, hidden = T.int64(spec.out_features), T.int64(spec.in_features)

    @T.prim_func(s_tir=True)
    def embedding(
        ids_handle: T.handle, weight_handle: T.handle, scale_handle: T.handle, y_handle: T.handle
    ) -> None:
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
        num_tokens = T.int64()
        ids = T.match_buffer(ids_handle, (num_tokens,), "int32")
        q_weight = T.match_buffer(weight_handle, (vocabulary, hidden // QUANT_PER_WORD), "uint32")
        q_scale = T.match_buffer(scale_handle, (vocabulary, hidden // QUANT_GROUP), spec.dtype)
        y = T.match_buffer(y_handle, (num_tokens, hidden), spec.dtype)
        for token in range(num_tokens):
            dequantize_run(q_weight, q_scale, ids[token], 0, hidden // QUANT_GROUP, y, token)

    return embedding
