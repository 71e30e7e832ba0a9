"""The best use of a budget over convex costs: lower convex envelopes, spent by marginal gain.

Each unit (a head, or a group of heads that share their lists) has a cost that falls as it computes
more pairs. On its lower convex envelope the gain per pair only falls, so taking segments of all
units by decreasing gain is the exact optimum of the piecewise-linear problem.
"""

from __future__ import annotations

import itertools

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
Integers = NDArray[np.int64]


def lower_envelope(pairs: Integers, costs: Doubles) -> Integers:
    """Indices of the points that make the lower convex envelope of a cost curve.

    `pairs` `[points]`, ascending, may repeat; `costs` `[points]`, not negative. Costs are first
    made to fall with pairs: computing more is never taken to be worse, a rise is noise. The first
    and the last point (the least cost) are always on the envelope.
    """
    falling = np.minimum.accumulate(costs)
    hull: list[int] = []
    for point in range(len(pairs)):
        if hull and pairs[point] == pairs[hull[-1]]:
            continue  # the same pairs: k_min, or a grid finer than the counts
        while len(hull) >= 2 and _above(pairs, falling, hull[-2], hull[-1], point):
            hull.pop()
        hull.append(point)
    return np.array(hull, np.int64)


def _above(pairs: Integers, costs: Doubles, left: int, middle: int, right: int) -> bool:
    """Whether the middle point lies on or above the line from left to right."""
    rise = (costs[middle] - costs[left]) * float(pairs[right] - pairs[left])
    return bool(rise >= (costs[right] - costs[left]) * float(pairs[middle] - pairs[left]))


def spend(pairs: Integers, costs: Doubles, budget_pairs: int, weight: int = 1) -> Integers:
    """Pairs for each unit, of at most `budget_pairs` in all, at the least total cost.

    Parameters
    ----------
    pairs : `[points]`, what a unit's pairs are at each point, ascending; the same for all units.
    costs : `[units, points]`.
    budget_pairs : in units of one head's pairs.
    weight : heads in a unit: a pair of a unit counts this often.

    Returns `[units]`. The last segment is taken in part, so that the budget is met to less than
    `weight`, unless everything costs less than the budget.
    """
    segments = []  # (gain per pair, unit, place on its envelope, pairs)
    for unit, cost in enumerate(costs):
        hull = lower_envelope(pairs, cost)
        falling = np.minimum.accumulate(cost)
        for place, (left, right) in enumerate(itertools.pairwise(hull)):
            more = int(pairs[right] - pairs[left])
            gain = float(falling[left] - falling[right]) / more
            segments.append((-gain, unit, place, more))
    spent: Integers = np.full(len(costs), int(pairs[0]), np.int64)
    left_over = budget_pairs - weight * int(spent.sum())
    # Along one envelope gains fall, so sorting keeps each unit's segments in order.
    for _, unit, _, more in sorted(segments):
        taken = min(more, left_over // weight)
        spent[unit] += taken
        left_over -= taken * weight
        if taken < more:
            break
    return spent
