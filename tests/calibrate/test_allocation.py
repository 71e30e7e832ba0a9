from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shadowattn_tvm.calibrate import PairBudget, past_fraction, scale_to_budget, sparse_pairs
from shadowattn_tvm.errors import ConfigError
from tir_kernels.constants import RATIO_ONE

BUDGET = PairBudget(window_tokens=2048, prefill_chunk_tokens=256, k_min=16)


@given(
    seed=st.integers(0, 1000),
    ratio=st.floats(0.0, 1.0),
    dense=st.sets(st.integers(0, 4), max_size=5),
    k_min=st.integers(1, 300),
)
@settings(deadline=None, max_examples=60)
def test_the_budget_is_met(seed: int, ratio: float, dense: set[int], k_min: int) -> None:
    budget = PairBudget(2048, 256, k_min)
    weights = np.random.default_rng(seed).lognormal(0.0, 2.0, (5, 4))
    try:
        ratios = scale_to_budget(weights, ratio, sorted(dense), budget)
    except ConfigError as error:
        smallest = float(str(error).split("at least ")[1].split(":")[0])
        assert ratio < smallest
        scale_to_budget(weights, smallest, sorted(dense), budget)
        return
    assert all((ratios[layer] == RATIO_ONE).all() for layer in dense)
    reached = past_fraction(ratios, budget)
    assert reached <= ratio + 1e-9
    if len(dense) < 5:
        assert reached > ratio - 1e-3
    sparse = np.array([layer not in dense for layer in range(5)])
    below = sparse[:, None] & (ratios < RATIO_ONE)
    # In proportion to the weights, but for rounding down to 1/65536: one factor explains all.
    if below.any():
        lowest, highest = ratios[below] / weights[below], (ratios[below] + 1) / weights[below]
        assert lowest.max() <= highest.min()


def test_what_is_cut_goes_to_the_others_in_proportion() -> None:
    budget = PairBudget(window_tokens=2000, prefill_chunk_tokens=1000, k_min=1)
    # Proportions 6 : 2 : 1 of a budget of 3 * 0.6: the first is cut to 1, 0.8 is left for 2 : 1.
    ratios = scale_to_budget(np.array([[6.0, 2.0, 1.0]]), 0.6, (), budget)
    np.testing.assert_allclose(ratios / RATIO_ONE, [[1.0, 0.8 * 2 / 3, 0.8 / 3]], atol=2e-3)


def test_heads_without_weight_get_what_the_others_cannot_take() -> None:
    ratios = scale_to_budget(np.array([[1.0, 0.0]]), 0.75, (), BUDGET)
    assert ratios[0, 0] == RATIO_ONE
    assert past_fraction(ratios, BUDGET) == pytest.approx(0.75, abs=1e-3)


def test_dense_layers_and_k_min_come_out_of_the_budget() -> None:
    left = sparse_pairs(0.5, (4, 3), (1,), BUDGET)
    assert left == round(0.5 * 12 * BUDGET.total) - 3 * BUDGET.total
    with pytest.raises(ConfigError, match=r"1 of 4 layers are dense.* got 0\.2; raise the ratio"):
        sparse_pairs(0.2, (4, 3), (1,), BUDGET)
    with pytest.raises(ConfigError, match=r"at least 0\.0157: 0 of 4.* keep 16 positions"):
        sparse_pairs(0.01, (4, 3), (), BUDGET)
