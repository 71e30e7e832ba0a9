"""A cost model fitted to the stage times of lists.

A list's pilot takes `heads * (a + b * voters * keys)`, its selection and attention together
`c + d * keys + e * heads * queries * kept`, with no coefficient below 0 and the squares of relative
errors as small as they can be. What the two parts of the second stage cost apart shows if contexts
or keep ratios differ; otherwise only their sum means anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from ..config.cost_model import AttendCost, CostModel, FusedLaunch, PilotCost, SelectCost
from .stage_times import ListTime

Doubles = NDArray[np.float64]

_NS_PER_MS = 1e6


@dataclass(frozen=True)
class FittedCosts:
    """A cost model, and the median of |fitted - measured| / measured of each stage."""

    model: CostModel
    pilot_error: float
    attend_error: float


def fit_costs(times: Sequence[ListTime], *, query_block: int, head_dim: int) -> FittedCosts:
    """The cost model of at least one list's times. The pilot's table entry is for a list of
    `query_block` queries and the most keys measured."""
    heads, queries, voters, keys, kept = (
        np.array([getattr(time, name) for time in times], float)
        for name in ("heads", "queries", "voters", "keys", "kept")
    )
    pilot_ns = _NS_PER_MS * np.array([time.pilot_ms for time in times])
    attend_ns = _NS_PER_MS * np.array([time.attend_ms for time in times])
    (fixed, per_pair), pilot_error = _fit([heads, heads * voters * keys], pilot_ns)
    ones = np.ones_like(keys)
    (per_list, per_key, per_kept), attend_error = _fit(
        [ones, keys, heads * queries * kept], attend_ns
    )
    most_keys = max(time.keys for time in times)
    one_head_ns = fixed + per_pair * query_block * most_keys
    model = CostModel(
        shared_cpu=True,
        pilot=PilotCost(
            covers="list",
            queries=query_block,
            keys=most_keys,
            head_dim=head_dim,
            launches=(FusedLaunch(heads=1, ms=one_head_ns / _NS_PER_MS),),
            fixed_ms=fixed / _NS_PER_MS,
        ),
        select=SelectCost(ns_per_list=per_list, ns_per_list_and_key=per_key),
        attend=AttendCost(ns_per_query_and_kept_key=per_kept, head_dim=head_dim),
    )
    return FittedCosts(model, pilot_error, attend_error)


def _fit(columns: Sequence[Doubles], wanted: Doubles) -> tuple[tuple[float, ...], float]:
    """Coefficients of at least 0 with the least squares of relative errors, and the median of
    those errors. The best over all subsets of columns: they are few."""
    relative = np.stack(columns, axis=1) / wanted[:, None]
    best, least = np.zeros(len(columns)), float("inf")
    for size in range(len(columns), 0, -1):
        for used in combinations(range(len(columns)), size):
            found = np.linalg.lstsq(relative[:, used], np.ones(len(wanted)), rcond=None)[0]
            if (found < 0).any():
                continue
            coefficients = np.zeros(len(columns))
            coefficients[list(used)] = found
            error = float(np.square(relative @ coefficients - 1.0).sum())
            if error < least:
                best, least = coefficients, error
    median = float(np.median(np.abs(relative @ best - 1.0)))
    return tuple(map(float, best)), median
