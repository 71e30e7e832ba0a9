"""Johnson's rule for two machines, with lags.

Sources: S. M. Johnson, "Optimal two- and three-stage production schedules with setup times
included" (1954); L. G. Mitten, "Sequencing n jobs on two machines with arbitrary time lags" (1959).
"""

from __future__ import annotations

from collections.abc import Sequence


def johnson_order(first: Sequence[float], second: Sequence[float]) -> list[int]:
    """The jobs, which take `first[i]` on one machine and then `second[i]` on another, in an order
    that is done earliest: short first stages in front, short second stages last. Where that leaves
    a choice, who takes the second machine longer, or the first for less, is in front: such an
    order stays good where the times are a little off. Jobs that are alike keep their order."""
    jobs = range(len(first))
    early = sorted((i for i in jobs if first[i] < second[i]), key=lambda i: (first[i], -second[i]))
    late = sorted((i for i in jobs if first[i] >= second[i]), key=lambda i: (-second[i], first[i]))
    return early + late


def lagged_makespan(
    first: Sequence[float], lags: Sequence[float], second: Sequence[float]
) -> float:
    """The least makespan of two machines if job i may start on the second `lags[i]` after its end
    on the first, at the earliest, and meanwhile occupies neither. Lags of 0 give Johnson's."""
    order = johnson_order(
        [a + lag for a, lag in zip(first, lags, strict=True)],
        [lag + b for lag, b in zip(lags, second, strict=True)],
    )
    free_first = free_second = 0.0
    for job in order:
        free_first += first[job]
        free_second = max(free_second, free_first + lags[job]) + second[job]
    return free_second
