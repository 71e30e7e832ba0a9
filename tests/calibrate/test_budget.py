from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadowattn_tvm.calibrate import PairBudget
from shadowattn_tvm.runtime.pairs import PairCounter
from tir_kernels.constants import RATIO_ONE

BUDGETS = st.builds(
    PairBudget,
    window_tokens=st.integers(2, 300),
    prefill_chunk_tokens=st.integers(1, 100),
    k_min=st.integers(1, 40),
)
RATIOS = st.integers(0, RATIO_ONE)


def test_a_window_counted_by_hand() -> None:
    budget = PairBudget(window_tokens=10, prefill_chunk_tokens=4, k_min=3)
    assert budget.chunks() == [(4, 4), (8, 2)]
    assert budget.total == 4 * 4 + 8 * 2
    assert budget.kept(0) == 3 * 4 + 3 * 2  # k_min
    assert budget.kept(RATIO_ONE // 2) == 3 * 4 + 4 * 2  # half of 4 is less than k_min
    assert budget.kept(RATIO_ONE) == budget.total
    # One more than k_min of the last chunk's 8 costs 2 pairs: ratios from above 3/8 on.
    assert budget.ratio_for(18) == 3 * RATIO_ONE // 8
    assert budget.ratio_for(20) == 4 * RATIO_ONE // 8
    assert budget.ratio_for(0) == 0


@given(budget=BUDGETS, ratio=RATIOS)
def test_pairs_are_the_runtimes(budget: PairBudget, ratio: int) -> None:
    counter = PairCounter([[ratio]], budget.k_min)
    counts = [counter.chunk(past, queries) for past, queries in budget.chunks()]
    assert budget.kept(ratio) == sum(count.past_kept for count in counts)
    assert budget.total == sum(count.past_total for count in counts)


@given(budget=BUDGETS, ratio=RATIOS)
def test_the_ratio_for_pairs_is_the_largest_that_fits(budget: PairBudget, ratio: int) -> None:
    pairs = budget.kept(ratio)
    found = budget.ratio_for(pairs)
    assert found >= ratio
    assert budget.kept(found) == pairs
    if found < RATIO_ONE:
        assert budget.kept(found + 1) > pairs


@pytest.mark.parametrize("window_tokens", [5, 256])
def test_a_chunk_of_one_token_is_dense(window_tokens: int) -> None:
    budget = PairBudget(window_tokens, window_tokens - 1, k_min=1)
    assert budget.kept(0) == budget.total == window_tokens - 1
