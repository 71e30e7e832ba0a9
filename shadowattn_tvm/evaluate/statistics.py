"""Intervals over windows: what is uncertain is which texts were drawn, not which tokens.

Tokens of a window share a topic and a style, so a bootstrap over tokens would promise more than is
known. All functions resample whole windows, with a fixed seed: the same figures give the same
interval.

Contents
- `bootstrap_interval`: of the mean of a figure per window.
- `relative_percent`, `relative_interval`: relative perplexity, from differences in nats.
- `paired`: the differences of two methods on the same windows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from ..errors import ConfigError

RESAMPLES = 10_000
"""More change the third digit of an interval's ends only."""

CONFIDENCE_PERCENT = 95.0

_SEED = 20_250_816

Key = TypeVar("Key")


def bootstrap_interval(
    values: Sequence[float], *, resamples: int = RESAMPLES, seed: int = _SEED
) -> tuple[float, float]:
    """The percentile bootstrap interval (95 %) of the mean of `values`, one a window.

    Raises `ConfigError` without values. One value gives an interval of no width: nothing is known
    of the spread.
    """
    sample = np.asarray(values, np.float64)
    if not len(sample):
        raise ConfigError("expected at least one window to resample, got none")
    means = _resampled_means(sample, resamples, seed)
    tail = (100.0 - CONFIDENCE_PERCENT) / 2
    lower, upper = np.percentile(means, [tail, 100.0 - tail])
    return float(lower), float(upper)


def relative_percent(differences_nats: Sequence[float]) -> float:
    """By how many percent the perplexity of one method exceeds another's: 100 * (exp(mean) - 1)
    of the differences in nats per token, one a window."""
    return _percent(float(np.mean(differences_nats)))


def relative_interval(differences_nats: Sequence[float]) -> tuple[float, float]:
    """The interval (95 %) of `relative_percent`; its ends are the transformed ends of the mean's,
    since the transformation is monotonic. Raises like `bootstrap_interval`."""
    lower, upper = bootstrap_interval(differences_nats)
    return _percent(lower), _percent(upper)


def paired(
    first: Mapping[Key, float], second: Mapping[Key, float], *, names: tuple[str, str]
) -> NDArray[np.float64]:
    """`[windows]` float64: second - first, window by window, in the order of `first`.

    Keys name windows. Raises `ConfigError` unless both have the same ones: an interval of
    differences is only worth something if each is of one text.
    """
    if first.keys() != second.keys():
        lacking = [key for key in first if key not in second]
        others = [key for key in second if key not in first]
        example = (lacking or others)[0]
        raise ConfigError(
            f"expected {names[0]} and {names[1]} to be measured on the same windows, got "
            f"{len(lacking)} of {len(first)} that only the former has and {len(others)} of "
            f"{len(second)} that only the latter has, among them {example}; evaluate both with the "
            "same corpus, windows and context"
        )
    return np.array([second[key] - value for key, value in first.items()], np.float64)


def _resampled_means(sample: NDArray[np.float64], resamples: int, seed: int) -> NDArray[np.float64]:
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, len(sample), (resamples, len(sample)))
    means: NDArray[np.float64] = sample[drawn].mean(axis=1)
    return means


def _percent(difference_nats: float) -> float:
    return 100.0 * float(np.expm1(difference_nats))
