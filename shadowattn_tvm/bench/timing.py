"""Honest timings on noisy machines: contenders take turns, medians and quartiles are kept."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import tvm

_EFFICIENT_FIRST = 1
"""TVM's pool mode that pins a thread to each of the fastest cores."""


@dataclass(frozen=True)
class Contender:
    """Something to time.

    Attributes
    ----------
    label : what it is.
    elapsed_ms : does the work `units` times, layer after layer, and says how long it took.
    units : what a time is divided by.
    threads : of TVM's pool, while it runs.
    """

    label: str
    elapsed_ms: Callable[[], float]
    units: int
    threads: int


@dataclass(frozen=True)
class Timing:
    """Times of one unit, in milliseconds: the median, and the distance of the quartiles."""

    median_ms: float
    spread_ms: float
    rounds: int


def alternate(
    contenders: Sequence[Contender],
    *,
    rounds: int,
    use_threads: Callable[[int], None],
    on_round: Callable[[int, int], None] = lambda done, total: None,
) -> list[Timing]:
    """Time every contender once a round, `rounds` times, after a round that doesn't count.

    The order turns from round to round, so that none always follows the same one. `use_threads`
    prepares the pool for each.
    """
    times: list[list[float]] = [[] for _ in contenders]
    for round_index in range(rounds + 1):
        for offset in range(len(contenders)):
            index = (round_index + offset) % len(contenders)
            use_threads(contenders[index].threads)
            elapsed_ms = contenders[index].elapsed_ms()
            if round_index > 0:
                times[index].append(elapsed_ms / contenders[index].units)
        on_round(round_index, rounds)
    return [_summary(each) for each in times]


def use_threads(threads: int) -> None:
    """Let TVM's pool run tasks on so many threads, of those it was made with; each is pinned to a
    core of its own, but for the caller's, which TVM would pin for good."""
    allowed = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    tvm.get_global_func("runtime.config_threadpool")(_EFFICIENT_FIRST, threads)
    if allowed is not None:
        os.sched_setaffinity(0, allowed)


def clocked_ms(run: Callable[[], None]) -> float:
    """How long `run` takes in this process."""
    start = time.perf_counter()
    run()
    return 1e3 * (time.perf_counter() - start)


def quartile_distance(times: Sequence[float]) -> float:
    """From the first quartile to the third; 0 of a single time."""
    if len(times) == 1:
        return 0.0
    lower, _, upper = statistics.quantiles(times, n=4, method="inclusive")
    return upper - lower


def _summary(times: Sequence[float]) -> Timing:
    return Timing(statistics.median(times), quartile_distance(times), len(times))
