"""The scalar parts of pooling: a head's two tables of factors, a row's normalization."""

from __future__ import annotations

from tvm.script import tirx as T

from ..simd.vector import Expr
from .pooling import (
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

    def __init__(self) -> None:
        self.high = T.alloc_buffer((TABLE_ENTRIES,), "int32")
        self.low = T.alloc_buffer((TABLE_ENTRIES,), "int32")
        self.fractions = T.alloc_buffer((1 << FRACTION_BITS,), "int32")

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
        return T.shift_right(high * self.low[distance & (TABLE_ENTRIES - 1)], MULTIPLY_SHIFT)


def row_inverse(weight_sum: Expr) -> tuple[Expr, Expr]:
    """R and the shift that follows it, of Z > 0; int32 scalars, bound."""
    bits = T.bind(32 - T.clz(weight_sum))
    numerator = T.shift_left(T.int64(1), T.Cast("int64", bits + INVERSE_BITS)) - T.int64(1)
    inverse = T.bind(T.Cast("int32", T.truncdiv(numerator, T.Cast("int64", weight_sum))))
    return inverse, T.bind(bits + INVERSE_BITS - ROW_BITS)
