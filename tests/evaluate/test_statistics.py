"""Bootstrap intervals, against scipy's and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from shadowattn_tvm.errors import ConfigError
from shadowattn_tvm.evaluate.statistics import (
    bootstrap_interval,
    paired,
    relative_interval,
    relative_percent,
)

DIFFERENCES = np.random.default_rng(8).normal(0.004, 0.01, 24).tolist()


def test_the_interval_is_scipys() -> None:
    stats = pytest.importorskip("scipy.stats", reason="scipy comes with the calibrate extra")
    expected = stats.bootstrap(
        (DIFFERENCES,), np.mean, n_resamples=200_000, method="percentile", rng=1
    ).confidence_interval
    got = bootstrap_interval(DIFFERENCES)
    width = expected.high - expected.low
    assert got[0] == pytest.approx(expected.low, abs=0.02 * width)
    assert got[1] == pytest.approx(expected.high, abs=0.02 * width)


def test_two_windows_by_hand() -> None:
    # Resamples of {0, 1} have the mean 0 in a quarter of the cases and 1 in another.
    assert bootstrap_interval([0.0, 1.0]) == (0.0, 1.0)


def test_equal_windows_leave_no_doubt() -> None:
    lower, upper = bootstrap_interval([0.25] * 20)
    assert (lower, upper) == (0.25, 0.25)


def test_the_same_figures_give_the_same_interval() -> None:
    assert bootstrap_interval(DIFFERENCES) == bootstrap_interval(list(DIFFERENCES))
    assert bootstrap_interval(DIFFERENCES, seed=1) != bootstrap_interval(DIFFERENCES)


def test_four_times_the_windows_halve_the_interval() -> None:
    few, many = (bootstrap_interval(DIFFERENCES * times) for times in (1, 4))
    assert (many[1] - many[0]) / (few[1] - few[0]) == pytest.approx(0.5, abs=0.03)


def test_relative_perplexity_by_hand() -> None:
    # exp(mean(0.1, 0.3)) - 1 = exp(0.2) - 1
    assert relative_percent([0.1, 0.3]) == pytest.approx(100 * (math.exp(0.2) - 1))
    assert relative_interval([0.1, 0.3]) == pytest.approx(
        (100 * (math.exp(0.1) - 1), 100 * (math.exp(0.3) - 1))
    )


def test_no_windows_are_an_error() -> None:
    with pytest.raises(ConfigError, match="at least one window"):
        bootstrap_interval([])


def test_pairs_are_by_window() -> None:
    first, second = {"a": 1.0, "b": 2.0}, {"b": 2.5, "a": 0.0}
    np.testing.assert_array_equal(paired(first, second, names=("x", "y")), [-1.0, 0.5])


def test_other_windows_can_not_be_paired() -> None:
    with pytest.raises(ConfigError, match="expected x and y to be measured on the same windows"):
        paired({"a": 1.0}, {"b": 1.0}, names=("x", "y"))
