"""NumPy twin of pooling: the same integers, bit for bit."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..pilot.pooling import (
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

Int32s = npt.NDArray[np.int32]
Int64s = npt.NDArray[np.int64]


def power_table(step: int) -> Int64s:
    """(16,): (2^15 - 1) * 2^(-i * step / 2^16)."""
    octaves = np.arange(TABLE_ENTRIES, dtype=np.int64) * step
    fraction = (octaves >> (STEP_BITS - FRACTION_BITS)) & ((1 << FRACTION_BITS) - 1)
    shift = np.minimum(octaves >> STEP_BITS, MAX_OCTAVES)
    return np.asarray(np.array(FRACTIONS, np.int64)[fraction] >> shift)


def exp_table(step: int) -> Int32s:
    """(256,) int32: 2^15 * 2^(-distance * step / 2^16), by distance from the row's maximum."""
    high, low = power_table(step << TABLE_BITS), power_table(step)
    products = np.outer(high, low).reshape(DISTANCES) + (1 << (MULTIPLY_SHIFT - 1))
    return np.asarray(products >> MULTIPLY_SHIFT, np.int32)


def row_probabilities(scores: Int32s, step: int) -> Int32s:
    """(m, n) requantized scores -> (m, n) int32, each row about 2^19 in sum; n > 0."""
    distances = np.minimum(scores.max(axis=1, keepdims=True) - scores, DISTANCES - 1)
    weights = exp_table(step)[distances].astype(np.int64)
    probabilities = np.empty(scores.shape, np.int32)
    for row, weight in enumerate(weights):
        total = int(weight.sum())
        bits = total.bit_length()
        inverse = ((1 << (INVERSE_BITS + bits)) - 1) // total
        probabilities[row] = (weight * inverse) >> (bits + INVERSE_BITS - ROW_BITS)
    return probabilities


def importance(scores: list[Int32s], steps: list[int]) -> Int32s:
    """(n,) int32: the probabilities of every row of every head, added up.

    `scores` holds one (m, n) array of requantized scores a head, `steps` each head's step.
    """
    votes = np.zeros(scores[0].shape[1], np.int32)
    for head_scores, step in zip(scores, steps, strict=True):
        votes += row_probabilities(head_scores, step).sum(axis=0, dtype=np.int32)
    return votes
