"""Requantization on x86, two vectors of scores at a time: each step is one instruction there."""

from __future__ import annotations

from tvm.script import tirx as T

from ..simd.vector import Expr, splat
from ..x86.int16 import multiply_round, pack_int32


def requantize_pair(x: Expr, y: Expr, multiplier: Expr, shift: Expr, lanes: int) -> Expr:
    """Two vectors of INT32 scores that half(shift) was added to, as one of int16: the contract of
    `requantize` but for the last clamp, in the order of `pack_int32`. `multiplier` and `shift`
    int32 scalars."""
    shifts = splat(shift, lanes)
    packed = pack_int32(T.shift_right(x, shifts), T.shift_right(y, shifts), lanes)
    return multiply_round(packed, splat(T.Cast("int16", multiplier), 2 * lanes), lanes)
