"""Pooling: the INT8 scores of several rows become one importance per key, by integers alone.

Rows that share a list vote with their probabilities: raw scores of different rows don't compare.

Contract, the same bits on every target, for a row of INT8 scores s over n keys and a static step
(octaves, powers of two, per unit of score, in units of 2^-16)::

    x_j = (max(s) - s_j) * step                       at most 254 units below the maximum
    e_j = FRACTIONS[(x_j >> 11) & 31] >> min(x_j >> 16, 31)        about 2^14 * 2^(-x_j / 2^16)
    Z   = sum(e);  b = bit_length(Z);  R = floor(2^(15 + b) / Z)
    p_j = (e_j * R + 2^(b - 5)) >> (b - 4)            a row adds up to about 2^19

e is one of 256 table entries, so an NPU looks it up; products fit 31 bits, only R takes a 64-bit
division, once a row. importance_j = the sum of p_j over the rows.

Source: ours, from the pilot of "Dynamic Sparse Attention on Mobile SoCs".
"""

from __future__ import annotations

from tvm.script import tirx as T

from ..constants import LOG2_E, MASKED_SCORE
from ..simd.vector import Expr, max_lanes_i32, splat, sum_lanes_i32

TABLE_ENTRIES = 256
"""Distances of INT8 scores from their row's maximum: 0..254, and one to fill the table."""

WEIGHT_BITS = 14
"""The row's maximum weighs 2^14: 2^17 such weights, a context of 128k, still fit 31 bits."""

STEP_BITS = 16
"""Steps are octaves (powers of two) in units of 2^-16."""

FRACTION_BITS = 5
"""32 constants to an octave: 2 % between neighbours, finer than INT8 scores are."""

FRACTIONS = tuple(round(2.0 ** (WEIGHT_BITS - i / 2**FRACTION_BITS)) for i in range(32))
"""round(2^14 * 2^(-i / 32))."""

MAX_OCTAVES = 31
"""Shifting further is undefined in 32 bits, and leaves nothing long before."""

MAX_STEP = MAX_OCTAVES << STEP_BITS
"""One unit of score then ends the table."""

ROW_BITS = 19
"""A row's probabilities add up to about 2^19: fine enough for rows spread over 128k keys, and
`MAX_SHARING_ROWS` of them still fit 31 bits."""

MAX_POOLED_KEYS = 1 << (31 - WEIGHT_BITS)
"""Keys whose weights fit 31 bits in sum."""


PADDING = -(1 << 16)
"""Score of the padding of a row: further from any maximum than the table reaches."""


def pooling_step(sm_scale: float, q_scale: float, k_scale: float, factor: float) -> int:
    """Octaves per unit of INT8 score, in units of 2^-16: what one unit stands for in the exponent
    of the softmax. `sm_scale` is the spec's `pilot_sm_scale`, `factor` as in
    `HeadParameters.requant`."""
    octaves = sm_scale * LOG2_E * q_scale * k_scale / factor
    return min(max(round(octaves * 2.0**STEP_BITS), 1), MAX_STEP)


@T.meta_class
class Votes:
    """Adds up the rows of one list, inside the PrimFunc::

        votes = Votes(lanes, padded_keys)
        votes.start()
        votes.clear()
        for each row:
            votes.set_step(step)  # when it changes
            votes.add(scores, row)
        votes.close(num_keys)  # importance is ready

    Attributes
    ----------
    importance : (1, padded_keys) int32.
    table : (256,) int32, weights by distance from the row's maximum; the last, for padding, is 0.
    """

    def __init__(self, lanes: int, padded_keys: Expr) -> None:
        self.lanes = lanes
        self.padded_keys = padded_keys
        self.num_vectors = T.bind(padded_keys // lanes)
        self.importance = T.alloc_buffer((1, padded_keys), "int32")
        self.weights = T.alloc_buffer((padded_keys,), "int32")
        self.table = T.alloc_buffer((TABLE_ENTRIES,), "int32")
        self.fractions = T.alloc_buffer((1 << FRACTION_BITS,), "int32")

    def vector(self, index: Expr) -> Expr:
        """The positions of the `index`-th vector."""
        return T.ramp(index * self.lanes, 1, self.lanes)

    def start(self) -> None:
        """Once, before all else; plain Python."""
        for index, fraction in enumerate(FRACTIONS):
            T.buffer_store(self.fractions, T.int32(fraction), [index])

    @T.inline
    def clear(self) -> None:
        for v in range(self.num_vectors):
            self.importance[0, self.vector(v)] = splat(T.int32(0), self.lanes)

    @T.inline
    def set_step(self, step: Expr) -> None:
        for distance in range(TABLE_ENTRIES):
            octaves = T.bind(distance * step)
            fraction = T.bind(
                T.shift_right(octaves, STEP_BITS - FRACTION_BITS) & ((1 << FRACTION_BITS) - 1)
            )
            self.table[distance] = T.shift_right(
                self.fractions[fraction], T.min(T.shift_right(octaves, STEP_BITS), MAX_OCTAVES)
            )
        self.table[TABLE_ENTRIES - 1] = 0

    @T.inline
    def add(self, scores: T.Buffer, row: Expr) -> None:
        """importance += the probabilities of `scores[row]`, INT8 scores padded with PADDING."""
        most = T.alloc_buffer((self.lanes,), "int32")
        total = T.alloc_buffer((self.lanes,), "int32")
        most[self.vector(0)] = splat(T.int32(PADDING), self.lanes)
        total[self.vector(0)] = splat(T.int32(0), self.lanes)
        for v in range(self.num_vectors):
            most[self.vector(0)] = T.max(most[self.vector(0)], scores[row, self.vector(v)])
        largest = T.bind(max_lanes_i32(most[self.vector(0)], self.lanes))
        for v in range(self.num_vectors):
            distance = T.bind(
                T.min(
                    splat(largest, self.lanes) - scores[row, self.vector(v)],
                    splat(T.int32(TABLE_ENTRIES - 1), self.lanes),
                )
            )
            self.weights[self.vector(v)] = self.table[distance]
            total[self.vector(0)] = total[self.vector(0)] + self.weights[self.vector(v)]
        weight_sum = T.bind(sum_lanes_i32(total[self.vector(0)], self.lanes))
        bits = T.bind(32 - T.clz(weight_sum))
        inverse = T.bind(
            T.Cast(
                "int32",
                T.truncdiv(
                    T.shift_left(T.int64(1), T.Cast("int64", bits + WEIGHT_BITS + 1)),
                    T.Cast("int64", weight_sum),
                ),
            )
        )
        shift = T.bind(bits + WEIGHT_BITS + 1 - ROW_BITS)
        half = T.bind(T.shift_left(T.int32(1), shift - 1))
        for v in range(self.num_vectors):
            self.importance[0, self.vector(v)] = self.importance[0, self.vector(v)] + T.shift_right(
                self.weights[self.vector(v)] * splat(inverse, self.lanes) + splat(half, self.lanes),
                splat(shift, self.lanes),
            )

    @T.inline
    def close(self, num_keys: Expr) -> None:
        """Mask the padding."""
        for pad in range(self.padded_keys - num_keys):
            self.importance[0, num_keys + pad] = T.int32(MASKED_SCORE)
