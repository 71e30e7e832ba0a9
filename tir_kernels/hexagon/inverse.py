"""The inverse of a row's sum of weights, without a division, which the DSP has none of.

R = floor((2^(14 + b) - 1) / Z), b the bits of Z, is 2^14 / v, v = Z / 2^b from 1/2 to 1, rounded
down. Newton's iteration x <- x (2 - v x) begins with 48/17 - 32/17 v, which is wrong by one part in
17 at most, and squares that each time: two rounds leave less than half a unit of R, and 2^-25 of
rounding. A little is taken off, so that what remains is too small, by one unit at most; the
remainder says whether it is.
"""

from __future__ import annotations

from tvm.script import tirx as T

from ..pilot.pooling import INVERSE_BITS
from ..simd.vector import Expr

_VALUE_BITS = 31
"""v in units of 2^-31, a positive int32."""

_INVERSE_BITS = 29
"""x, from 1 to 2, in units of 2^-29: an int32 has room for the 48/17."""

_FIRST = round(48 / 17 * 2**_INVERSE_BITS)
_SLOPE = round(32 / 17 * 2**30)
"""In units that a multiply-high with v turns into those of x."""

_TWO = 1 << 29
"""In the units of v x, 2^-28."""

_ROUNDS = 2
_TAKEN_OFF = 1 << 4
"""2^-25 of x, more than its rounding and far less than a unit of R."""


def multiply_high(x: Expr, y: Expr) -> Expr:
    """(x * y) >> 32 of int32 scalars."""
    return T.Cast("int32", T.shift_right(T.Cast("int64", x) * T.Cast("int64", y), T.int64(32)))


def row_inverse(weight_sum: Expr) -> tuple[Expr, Expr]:
    """R and b of Z from 1 to 2^30 - 1, an int32 scalar; plain Python, both bound."""
    # in memory, not bound: TVM's simplifier takes bound values apart, which takes 20 s here
    x = T.alloc_buffer((1,), "int32")
    value = T.alloc_buffer((1,), "int32")
    bits = T.bind(32 - T.clz(weight_sum))
    T.buffer_store(value, T.shift_left(weight_sum, _VALUE_BITS - bits), [0])
    T.buffer_store(x, T.int32(_FIRST) - multiply_high(value[0], T.int32(_SLOPE)), [0])
    for _ in range(_ROUNDS):
        short = T.bind(T.int32(_TWO) - multiply_high(value[0], x[0]))
        T.buffer_store(x, T.shift_left(multiply_high(x[0], short), 4), [0])
    inverse = T.bind(T.shift_right(x[0] - _TAKEN_OFF, _INVERSE_BITS - INVERSE_BITS))
    # the remainder is below 2 Z, so 32 bits of it are enough, whatever overflows before
    numerator = T.Cast(
        "int32", T.shift_left(T.int64(1), T.Cast("int64", INVERSE_BITS + bits)) - T.int64(1)
    )
    remainder = T.reinterpret("uint32", numerator - inverse * weight_sum)
    too_small = remainder >= T.reinterpret("uint32", weight_sum)
    return T.bind(inverse + T.Cast("int32", too_small)), bits
