"""Requantization by HVX: the contract of `pilot.requantize`, 64 scores a vector."""

from __future__ import annotations

from tvm.script import tirx as T

from ..simd.vector import Expr
from .hvx import (
    max_halves,
    min_halves,
    multiply_halves_by_scalar,
    pack_words,
    shift_words,
    splat_word,
)


def in_both_halves(value: Expr) -> Expr:
    """An int32 scalar below 2^15, twice."""
    return value | T.shift_left(value, 16)


def splat_half(value: int) -> Expr:
    """A constant in every halfword."""
    word = in_both_halves_constant(value)
    return splat_word(T.int32(word))


def in_both_halves_constant(value: int) -> int:
    """An int16 twice, as a signed word."""
    half = value & 0xFFFF
    word = half << 16 | half
    return word - (1 << 32) if word >> 31 else word


def requantize_halves(
    low: Expr, high: Expr, multipliers: Expr, shift: Expr, score_max: int, limits: Expr
) -> Expr:
    """64 scores as halfwords, of the sums in `low` and `high` that half(shift) was added to;
    `multipliers` in both halves of an int32."""
    t = pack_words(shift_words(low, shift), shift_words(high, shift))
    scaled = multiply_halves_by_scalar(t, multipliers)
    return min_halves(max_halves(scaled, splat_half(-score_max)), limits)
