"""INT32 scores to INT8 by integers alone: a rounding shift, a 15-bit multiplier, a second shift.

Contract, the same bits on every target, for an INT32 score `acc`::

    t  = (acc + half(pre_shift)) >> pre_shift          fits 16 bits
    s8 = clamp((t * multiplier + half(shift)) >> shift, -127, 127)

with arithmetic shifts and half(n) = 2^(n-1), or 0 for n = 0. Every product fits 31 bits, so 32-bit
lanes do, on CPUs as on an NPU.

Source: the output scale of the public shadowAttn implementation; the fixed-point form is ours.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from tvm.script import tirx as T

from ..constants import INT8_QMAX
from ..simd.vector import Expr, splat
from ..spec import SpecError

_OPERAND_BITS = 15
"""Magnitude bits of either factor of the product."""

_MAX_SHIFT = 30
"""Where half of the divisor still fits beside the product."""


@dataclass(frozen=True)
class Requantizer:
    """One factor in fixed point: factor = multiplier * 2 ** -(pre_shift + shift)."""

    pre_shift: int
    multiplier: int
    shift: int


def pre_shift_bits(head_dim: int, quant_max: int) -> int:
    """How far a score is shifted before it is multiplied: the least that makes all fit."""
    return max(0, (quant_max * quant_max * head_dim).bit_length() - _OPERAND_BITS)


def requantizer(factor: float, head_dim: int, quant_max: int) -> Requantizer:
    """The fixed-point form of `factor`, INT8 scores per unit of INT32 score.

    Raises `SpecError` for a factor too small or too large to be one.
    """
    pre_shift = pre_shift_bits(head_dim, quant_max)
    if not 0.0 < factor < math.inf:
        raise SpecError(f"expected a positive requantization factor, got {factor}")
    mantissa, exponent = math.frexp(factor * 2.0**pre_shift)  # mantissa in [0.5, 1)
    multiplier, shift = round(mantissa * 2**_OPERAND_BITS), _OPERAND_BITS - exponent
    if multiplier == 1 << _OPERAND_BITS:
        multiplier, shift = multiplier >> 1, shift - 1
    if not 1 <= shift <= _MAX_SHIFT:
        raise SpecError(
            f"expected a requantization factor between {2.0 ** (-_OPERAND_BITS - pre_shift):.3g} "
            f"and {2.0 ** (_OPERAND_BITS - 1 - pre_shift):.3g} for a head dim of {head_dim}, "
            f"got {factor}"
        )
    return Requantizer(pre_shift, multiplier, shift)


def requantize_lanes(
    scores: Expr, pre_shift: int, multiplier: Expr, shift: Expr, lanes: int
) -> Expr:
    """int32 lanes of INT32 scores as int32 lanes in -127..127; `multiplier` and `shift` int32
    scalars."""
    if pre_shift:
        half = splat(T.int32(1 << (pre_shift - 1)), lanes)
        scores = T.shift_right(scores + half, splat(T.int32(pre_shift), lanes))
    half = splat(T.shift_left(T.int32(1), shift - 1), lanes)
    scaled = T.shift_right(scores * splat(multiplier, lanes) + half, splat(shift, lanes))
    return T.max(T.min(scaled, splat(T.int32(INT8_QMAX), lanes)), splat(T.int32(-INT8_QMAX), lanes))
