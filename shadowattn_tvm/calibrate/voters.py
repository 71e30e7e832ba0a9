"""Who votes on shared lists: every query of some heads, a sample of others'.

Where all queries of a block look for the same keys, a few of them find these. Where each looks for
its own, as induction heads do, what only the others look for is lost. So every head has a stride of
its own, by the costs that `fisher` measures: the least total cost at which no more than
`settings.voting_fraction` of all queries vote, the pilot's work being in proportion to them.
"""

from __future__ import annotations

import numpy as np

from tir_kernels.constants import RATIO_ONE

from .allocation import Doubles, Ratios, Strides
from .build_plan import MethodContext, StrideChoice
from .fisher import GRID_Q16, mean_costs


def chosen_by_cost(context: MethodContext, ratios: Ratios) -> Strides:
    """The `StrideChoice` of `--voters`."""
    settings = context.settings
    group = context.spec.attention.group_size if settings.sharing.gqa_group else 1
    costs = costs_at(mean_costs(context), ratios, context)
    units = costs.reshape(len(costs), -1, group).sum(axis=2)  # who shares lists shares a stride
    sparse = ratios.reshape(-1, group)[:, 0] < RATIO_ONE
    strides = np.ones(len(sparse), np.int64)
    measured = np.array(settings.measured_strides, np.int64)
    strides[sparse] = measured[cheapest(units[:, sparse], 1 / measured, settings.voting_fraction)]
    return np.repeat(strides, group).reshape(ratios.shape)


def the_same(stride: int) -> StrideChoice:
    """Every head's stride is `stride`, but where it runs dense."""

    def choose(_context: MethodContext, ratios: Ratios) -> Strides:
        return np.where(ratios < RATIO_ONE, stride, 1).astype(np.int64)

    return choose


def costs_at(costs: Doubles, ratios: Ratios, context: MethodContext) -> Doubles:
    """`[strides, layers, heads]`: what `costs` `[strides, layers, heads, grid]` say of `ratios`,
    between points of the grid in proportion to the pairs they keep."""
    pairs = np.array([context.budget.kept(ratio) for ratio in GRID_Q16], np.float64)
    falling = np.minimum.accumulate(costs, axis=-1)  # a rise is noise
    found = np.empty(costs.shape[:-1])
    for layer, head in np.ndindex(ratios.shape):
        kept = context.budget.kept(int(ratios[layer, head]))
        for stride in range(len(costs)):
            found[stride, layer, head] = np.interp(kept, pairs, falling[stride, layer, head])
    return found


def cheapest(costs: Doubles, work: Doubles, fraction: float) -> Strides:
    """For each unit a choice, `[units]`, such that the mean of their `work` `[choices]` is at most
    `fraction` and the sum of their `costs` `[choices, units]` the least, but for one unit's step.

    A price on work is raised until the choices that are cheapest at that price meet the fraction.
    """

    def at(price: float) -> Strides:
        chosen: Strides = np.argmin(costs + price * work[:, None], axis=0)
        return chosen

    if costs.shape[1] == 0 or work[at(0.0)].mean() <= fraction:
        return at(0.0)
    low, high = 0.0, float(costs.max() / np.abs(np.diff(work)).min()) + 1.0
    for _ in range(100):  # doubles have no more halvings that matter
        middle = (low + high) / 2
        if work[at(middle)].mean() <= fraction:
            high = middle
        else:
            low = middle
    return at(high)
