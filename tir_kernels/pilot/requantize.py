"""INT32 scores to 8 or 9 bits in 16-bit lanes: a rounding shift, then a rounding multiply-high.

Contract, the same bits on every target, for an INT32 score `acc`::

    t  = clamp16((acc + half(shift)) >> shift)
    s  = clamp((t * multiplier + 2^14) >> 15)

with arithmetic shifts, half(n) = 2^(n-1), or 0 for n = 0, clamp16 to int16 and clamp to -127..127,
or to -255..255 with 9 bits.
The second step is one instruction where there are vectors of int16: x86's vpmulhrsw, ARM's
sqrdmulh, HVX's vmpy with rounding and saturation. Clamping `t` changes nothing: it is clamped again
wherever it was.

Source: the output scale of the public shadowAttn implementation; the fixed-point form is ours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from tvm.script import tirx as T

from ..simd.vector import Expr, splat
from ..spec import SpecError

MULTIPLY_SHIFT = 15
"""What the multiply-high shifts by."""

INT16_MAX = 2**15 - 1

_MANTISSA_BITS = 11
"""Of the multiplier. Half of int16's, so that `t` keeps as many: a score of 127 comes from a `t`
of 2^11 to 2^12, and neither factor rounds away more than a 16th of a unit, an 8th at 255."""

_MAX_SHIFT = 30
"""Where half of the divisor still fits beside a score."""


@dataclass(frozen=True)
class Requantizer:
    """One factor in fixed point: factor = multiplier * 2 ** -(15 + shift)."""

    shift: int
    multiplier: int


def requantizer(factor: float) -> Requantizer:
    """The fixed-point form of `factor`, units of score per unit of INT32 score, at most 1.

    Raises `SpecError` for a factor too small or too large to be one.
    """
    smallest = 2.0 ** (_MANTISSA_BITS - 1 - MULTIPLY_SHIFT - _MAX_SHIFT)
    if not smallest <= factor <= 1.0:
        raise SpecError(
            f"expected a requantization factor between {smallest:.3g} and 1, got {factor}"
        )
    _, exponent = math.frexp(factor)  # factor in [2^(exponent - 1), 2^exponent)
    shift = max(0, _MANTISSA_BITS - MULTIPLY_SHIFT - exponent)
    return Requantizer(shift, min(round(factor * 2.0 ** (MULTIPLY_SHIFT + shift)), INT16_MAX))


def half_unit(shift: Expr) -> Expr:
    """half(shift) of an int32 scalar."""
    return T.shift_right(T.shift_left(T.int32(1), shift), T.int32(1))


def requantize_lanes(
    halved: Expr, multiplier: Expr, shift: Expr, score_max: int, lanes: int
) -> Expr:
    """int32 lanes of INT32 scores that half(shift) was added to, as int32 lanes in -score_max..
    score_max; `multiplier` and `shift` int32 scalars."""
    most = splat(T.int32(INT16_MAX), lanes)
    least = splat(T.int32(-INT16_MAX - 1), lanes)
    t = T.max(T.min(T.shift_right(halved, splat(shift, lanes)), most), least)
    rounded = t * splat(multiplier, lanes) + splat(T.int32(1 << (MULTIPLY_SHIFT - 1)), lanes)
    scaled = T.shift_right(rounded, splat(T.int32(MULTIPLY_SHIFT), lanes))
    return T.max(T.min(scaled, splat(T.int32(score_max), lanes)), splat(T.int32(-score_max), lanes))
