"""Pooling: the requantized scores of several rows become one importance per key, by integers alone.

Rows that share a list vote with their probabilities: raw scores of different rows don't compare.

Contract, the same bits on every target, for a row of requantized scores s over n keys and a static
step (octaves, powers of two, per unit of score, in units of 2^-16)::

    P(x)  = FRACTIONS[(x >> 11) & 31] >> min(x >> 16, 31)      about (2^15 - 1) * 2^(-x / 2^16)
    A_i   = P(16 * i * step),  B_i = P(i * step)                     16 entries each
    d_j   = min(max(s) - s_j, 255)
    e_j   = (A[d_j >> 4] * B[d_j & 15] + 2^14) >> 15                 at most 2^15 - 2
    Z     = sum(e);  b = bit_length(Z);  R = floor((2^(14 + b) - 1) / Z)
    p_j   = (e_j * R) >> (b - 5)                                     a row adds up to about 2^19

The exponential is two look-ups in tables of 16 and a rounding multiply-high, as in `requantize`:
what vector units do in registers, NPUs included. Factors fit an int16, products 31 bits. Only R
takes a 64-bit division, once a row. Every bit of e counts: keys whose weights are 0 are all alike.
importance_j = the sum of p_j over the rows.

Source: ours, from the pilot of "Dynamic Sparse Attention on Mobile SoCs".
"""

from __future__ import annotations

from ..constants import LOG2_E

TABLE_BITS = 4
"""A distance is a high and a low part of 4 bits each."""

TABLE_ENTRIES = 1 << TABLE_BITS

DISTANCES = 1 << (2 * TABLE_BITS)
"""Distances of scores from their row's maximum; the last stands for all beyond."""

FACTOR_MAX = 2**15 - 1
"""The largest factor: an int16."""

MULTIPLY_SHIFT = 15
"""What the multiply-high shifts by."""

MAX_WEIGHT = (FACTOR_MAX * FACTOR_MAX + (1 << (MULTIPLY_SHIFT - 1))) >> MULTIPLY_SHIFT
"""What the row's maximum weighs."""

STEP_BITS = 16
"""Steps are octaves (powers of two) in units of 2^-16."""

FRACTION_BITS = 5
"""32 constants to an octave: 2 % between neighbours, finer than scores are."""

FRACTIONS = tuple(round(FACTOR_MAX * 2.0 ** (-i / 2**FRACTION_BITS)) for i in range(32))
"""round((2^15 - 1) * 2^(-i / 32))."""

MAX_OCTAVES = 31
"""Shifting further is undefined in 32 bits, and leaves nothing long before."""

MAX_STEP = MAX_OCTAVES << STEP_BITS
"""One unit of score then ends the table."""

INVERSE_BITS = 14
"""R = (2^(14 + b) - 1) / Z stays below 2^15: a signed int16."""

ROW_BITS = 19
"""A row's probabilities add up to about 2^19: fine enough for rows spread over 128k keys, and
`MAX_SHARING_ROWS` of them still fit 31 bits."""

MAX_POOLED_KEYS = 1 << 17
"""Keys whose weights fit 32 bits in sum, unsigned."""


def pooling_step(sm_scale: float, q_scale: float, k_scale: float, factor: float) -> int:
    """Octaves per unit of score, in units of 2^-16: what one unit stands for in the exponent of the
    softmax. `sm_scale` is the spec's `pilot_sm_scale`, `factor` as in
    `HeadParameters.requant`."""
    octaves = sm_scale * LOG2_E * q_scale * k_scale / factor
    return min(max(round(octaves * 2.0**STEP_BITS), 1), MAX_STEP)
