"""Spending a budget of pairs on heads: the parts every method shares, integers throughout.

Keep ratios are `[layers, heads]` int64 in units of 1/65536 (q16), as the kernels take them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tir_kernels.constants import RATIO_ONE

from ..errors import ConfigError
from .budget import PairBudget

Ratios = NDArray[np.int64]
Strides = NDArray[np.int64]
Doubles = NDArray[np.float64]

_SMALLEST_WEIGHT = 1e-6
"""Of the largest: a head of weight zero still gets what all others can't take."""


def past_fraction(ratios: Ratios, budget: PairBudget) -> float:
    """The part of all pairs of a query and an older key that is computed at these ratios."""
    return kept_pairs(ratios, budget) / (ratios.size * budget.total)


def kept_pairs(ratios: Ratios, budget: PairBudget) -> int:
    """Pairs over all layers and heads of one window."""
    values, counts = np.unique(ratios, return_counts=True)
    return sum(budget.kept(int(v)) * int(count) for v, count in zip(values, counts, strict=True))


def sparse_pairs(
    ratio: float, shape: tuple[int, int], dense_layers: Sequence[int], budget: PairBudget
) -> int:
    """Pairs of one window that are left for the sparse layers when the past fraction over all
    layers is `ratio`.

    Raises `ConfigError` when dense layers and k_min alone take more.
    """
    num_layers, num_heads = shape
    num_dense, all_pairs = len(dense_layers), num_layers * num_heads * budget.total
    spent = num_dense * num_heads * budget.total
    least = spent + (num_layers - num_dense) * num_heads * budget.kept(0)
    wanted = round(ratio * all_pairs)
    if wanted < least:
        smallest = math.ceil(least / all_pairs * 1e4) / 1e4  # rounded up, so that it works
        raise ConfigError(
            f"expected a ratio of at least {smallest}: {num_dense} of {num_layers} layers are "
            f"dense and the others keep {budget.k_min} positions at least, got {ratio}; raise the "
            "ratio, name fewer dense layers or lower k_min"
        )
    return wanted - spent


def scale_to_budget(
    weights: Doubles, ratio: float, dense_layers: Sequence[int], budget: PairBudget
) -> Ratios:
    """Keep ratios in proportion to `weights`, cut to 1, that meet the past fraction `ratio` with
    k_min and dense layers inside it; the excess of what is cut goes to the others in proportion.

    `weights` `[layers, heads]`, finite and not negative; those of dense layers don't count. The
    past fraction is at most `ratio`, and short of it by less than one step of 1/65536 of the common
    factor. Raises `ConfigError` when there is no such allocation.
    """
    assert np.isfinite(weights).all()
    assert (weights >= 0).all()
    sparse = np.array([layer not in dense_layers for layer in range(len(weights))])
    result: Ratios = np.full(weights.shape, RATIO_ONE, np.int64)
    pairs = sparse_pairs(ratio, (weights.shape[0], weights.shape[1]), dense_layers, budget)
    if not sparse.any():
        return result
    wanted = weights[sparse]
    wanted = np.maximum(wanted, wanted.max() * _SMALLEST_WEIGHT) if wanted.max() > 0 else wanted + 1

    def at(factor: float) -> Ratios:
        ratios: Ratios = np.minimum(np.floor(wanted * factor * RATIO_ONE), RATIO_ONE).astype(
            np.int64
        )
        return ratios

    low, high = 0.0, 1.0 / float(wanted.min())
    if kept_pairs(at(high), budget) <= pairs:
        low = high
    # Doubles have no more than 64 halvings between two neighbours here.
    for _ in range(64):
        middle = (low + high) / 2
        if kept_pairs(at(middle), budget) <= pairs:
            low = middle
        else:
            high = middle
    result[sparse] = at(low)
    return result
