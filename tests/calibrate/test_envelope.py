from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from shadowattn_tvm.calibrate.envelope import lower_envelope, spend

PAIRS = np.array([0, 10, 20, 40])


def test_envelopes_by_hand() -> None:
    def hull(*costs: float) -> list[int]:
        return lower_envelope(PAIRS, np.array(costs)).tolist()

    assert hull(8, 4, 2, 0) == [0, 1, 2, 3]  # convex: gains 0.4, 0.2, 0.1
    assert hull(8, 7, 2, 0) == [0, 2, 3]  # 7 lies above the line from 8 to 2
    assert hull(8, 6, 4, 0) == [0, 3]  # a straight line needs its ends only
    assert hull(8, 2, 5, 0) == [0, 1, 3]  # a rise is noise
    repeated = np.array([5, 5, 20, 40])  # k_min decides the first two
    assert lower_envelope(repeated, np.array([8.0, 8.0, 2.0, 0.0])).tolist() == [0, 2, 3]


def test_spending_by_hand() -> None:
    costs = np.array([[8.0, 4.0, 2.0, 0.0], [1.0, 0.4, 0.2, 0.0]])
    # Gains per pair: unit 0 has 0.4, 0.2, 0.1; unit 1 has 0.06, 0.02, 0.01.
    assert spend(PAIRS, costs, 0).tolist() == [0, 0]
    assert spend(PAIRS, costs, 15).tolist() == [15, 0]
    assert spend(PAIRS, costs, 46).tolist() == [40, 6]
    assert spend(PAIRS, costs, 80).tolist() == [40, 40]
    assert spend(PAIRS, costs, 1000).tolist() == [40, 40]
    # Units of three heads: what a unit takes is paid three times.
    assert spend(PAIRS, costs, 46, weight=3).tolist() == [15, 0]


def test_every_unit_starts_with_what_it_cannot_do_without() -> None:
    costs = np.array([[9.0, 0.0], [1.0, 0.0]])
    assert spend(np.array([4, 20]), costs, 30).tolist() == [20, 10]


@given(
    data=st.data(),
    num_units=st.integers(1, 3),
    budget=st.integers(0, 30),
)
@settings(deadline=None, max_examples=80)
def test_nothing_else_costs_less(data: st.DataObject, num_units: int, budget: int) -> None:
    """Against all other ways to spend whole pairs, at costs linear along the envelope."""
    pairs = np.array([0, 2, 5, 9])
    values = st.lists(st.integers(0, 50), min_size=3, max_size=3)
    costs = np.array(
        [[*sorted(data.draw(values), reverse=True), 0] for _ in range(num_units)], np.float64
    )

    def cost(unit: int, taken: int) -> float:
        hull = lower_envelope(pairs, costs[unit])
        return float(np.interp(taken, pairs[hull], costs[unit][hull]))

    spent = spend(pairs, costs, budget)
    assert spent.sum() == min(budget, 9 * num_units)
    best = min(
        sum(cost(unit, taken) for unit, taken in enumerate(way))
        for way in itertools.product(range(10), repeat=num_units)
        if sum(way) <= budget
    )
    got = sum(cost(unit, int(taken)) for unit, taken in enumerate(spent))
    assert got <= best + 1e-9 * (1 + best)
