"""The scalar parts of pooling: a head's two tables of factors, a row's normalization."""

from __future__ import annotations

from tvm.script import tirx as T

from ..simd.vector import Expr, sum_lanes_i32
from .pooling import (
    DISTANCES,
    FRACTION_BITS,
    FRACTIONS,
    INVERSE_BITS,
    MAX_OCTAVES,
    MULTIPLY_SHIFT,
    ROW_BITS,
    STEP_BITS,
    TABLE_BITS,
    TABLE_ENTRIES,
)


@T.meta_class
class WeightTables:
    """A and B of the contract; made inside a task, `start` before all else.

    Attributes
    ----------
    high, low : (16,) int32, by the upper and the lower 4 bits of a distance.
    """

    def __init__(self, scope: str = "global") -> None:
        self.high = T.alloc_buffer((TABLE_ENTRIES,), "int32", scope=scope)
        self.low = T.alloc_buffer((TABLE_ENTRIES,), "int32", scope=scope)
        self.fractions = T.alloc_buffer((1 << FRACTION_BITS,), "int32", scope=scope)

    def start(self) -> None:
        """Plain Python: constants as stores."""
        for index, fraction in enumerate(FRACTIONS):
            T.buffer_store(self.fractions, T.int32(fraction), [index])

    def power(self, octaves: Expr) -> Expr:
        """P(octaves)."""
        fraction = T.shift_right(octaves, STEP_BITS - FRACTION_BITS) & ((1 << FRACTION_BITS) - 1)
        return T.shift_right(
            self.fractions[fraction], T.min(T.shift_right(octaves, STEP_BITS), MAX_OCTAVES)
        )

    @T.inline
    def set_step(self, step: Expr) -> None:
        for i in range(TABLE_ENTRIES):
            self.high[i] = self.power(T.shift_left(i * step, TABLE_BITS))
            self.low[i] = self.power(i * step)

    def weight(self, distance: Expr) -> Expr:
        """e of a distance, an int32 scalar."""
        high = self.high[T.shift_right(distance, TABLE_BITS)]
        product = high * self.low[distance & (TABLE_ENTRIES - 1)]
        return T.shift_right(product + T.int32(1 << (MULTIPLY_SHIFT - 1)), MULTIPLY_SHIFT)

    def last_weight(self) -> Expr:
        """e of the last distance, which padding has; an int64 scalar."""
        return T.Cast("int64", self.weight(T.int32(DISTANCES - 1)))


def unsigned_sum(weights: Expr, lanes: int) -> Expr:
    """The sum of int32 lanes as an int64 scalar, below 2^32."""
    return T.Cast("int64", T.reinterpret("uint32", sum_lanes_i32(weights, lanes)))


def row_inverse(weight_sum: Expr, leading_zeros: Expr | None = None) -> tuple[Expr, Expr]:
    """R and the shift that follows it, of Z > 0, an int64 scalar; int32 scalars, bound.
    `leading_zeros` of Z, int32, where the target's way to count them isn't LLVM's."""
    bits = T.bind(64 - (T.clz(weight_sum) if leading_zeros is None else leading_zeros))
    numerator = T.shift_left(T.int64(1), T.Cast("int64", bits + INVERSE_BITS)) - T.int64(1)
    inverse = T.bind(T.Cast("int32", T.truncdiv(numerator, weight_sum)))
    return inverse, T.bind(bits + INVERSE_BITS - ROW_BITS)
