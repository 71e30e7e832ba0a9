"""Pooling: the INT8 scores of several rows become one importance per key, by integers alone.

Rows that share a list vote with their probabilities: raw scores of different rows don't compare.

Contract, the same bits on every target, for a row of INT8 scores s over n keys and a static step
(octaves, powers of two, per unit of score, in units of 2^-16)::

    P(x)  = FRACTIONS[(x >> 11) & 31] >> min(x >> 16, 31)            about 2^15 * 2^(-x / 2^16)
    A_i   = P(16 * i * step),  B_i = P(i * step)                     16 entries each
    d_j   = max(s) - s_j                                             0..254
    e_j   = (A[d_j >> 4] * B[d_j & 15]) >> 16                        at most 2^14
    Z     = sum(e);  b = bit_length(Z);  R = floor((2^(14 + b) - 1) / Z)
    p_j   = (e_j * R) >> (b - 5)                                     a row adds up to about 2^19

The exponential is two look-ups in tables of 16 and a multiply-high: what vector units do in
registers, NPUs included. Factors fit 15 bits and a sign, but for the 2^15 of A_0 and B_0; products
fit 31 bits. Only R takes a 64-bit division, once a row.
importance_j = the sum of p_j over the rows.

Source: ours, from the pilot of "Dynamic Sparse Attention on Mobile SoCs".
"""

from __future__ import annotations

from ..constants import LOG2_E

TABLE_BITS = 4
"""A distance is a high and a low part of 4 bits each."""

TABLE_ENTRIES = 1 << TABLE_BITS

DISTANCES = 1 << (2 * TABLE_BITS)
"""Distances of INT8 scores from their row's maximum: 0..254, and one for what isn't there."""

FACTOR_BITS = 15
"""The largest factor is 2^15, an unsigned int16."""

MULTIPLY_SHIFT = 16
"""What the multiply-high shifts by."""

WEIGHT_BITS = 2 * FACTOR_BITS - MULTIPLY_SHIFT
"""The row's maximum weighs 2^14: 2^17 such weights, a context of 128k, still fit 31 bits."""

STEP_BITS = 16
"""Steps are octaves (powers of two) in units of 2^-16."""

FRACTION_BITS = 5
"""32 constants to an octave: 2 % between neighbours, finer than INT8 scores are."""

FRACTIONS = tuple(round(2.0 ** (FACTOR_BITS - i / 2**FRACTION_BITS)) for i in range(32))
"""round(2^15 * 2^(-i / 32))."""

MAX_OCTAVES = 31
"""Shifting further is undefined in 32 bits, and leaves nothing long before."""

MAX_STEP = MAX_OCTAVES << STEP_BITS
"""One unit of score then ends the table."""

INVERSE_BITS = 14
"""R = (2^(14 + b) - 1) / Z stays below 2^15: a signed int16."""

ROW_BITS = 19
"""A row's probabilities add up to about 2^19: fine enough for rows spread over 128k keys, and
`MAX_SHARING_ROWS` of them still fit 31 bits."""

MAX_POOLED_KEYS = 1 << (31 - WEIGHT_BITS)
"""Keys whose weights fit 31 bits in sum."""


def pooling_step(sm_scale: float, q_scale: float, k_scale: float, factor: float) -> int:
    """Octaves per unit of INT8 score, in units of 2^-16: what one unit stands for in the exponent
    of the softmax. `sm_scale` is the spec's `pilot_sm_scale`, `factor` as in
    `HeadParameters.requant`."""
    octaves = sm_scale * LOG2_E * q_scale * k_scale / factor
    return min(max(round(octaves * 2.0**STEP_BITS), 1), MAX_STEP)
