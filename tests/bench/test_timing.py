"""Contenders take turns, and what is kept of their times."""

from __future__ import annotations

import os
from functools import partial

import pytest

from shadowattn_tvm.bench import timing
from shadowattn_tvm.bench.timing import Contender, alternate


def took_ms(calls: list[str], name: str) -> float:
    calls.append(name)
    return 1.0


def test_contenders_take_turns_and_each_starts_in_turn() -> None:
    calls: list[str] = []
    contenders = [
        Contender(name, partial(took_ms, calls, name), units=1, threads=threads)
        for threads, name in enumerate("abc", start=1)
    ]
    used: list[int] = []
    rounds: list[tuple[int, int]] = []
    timings = alternate(
        contenders, rounds=3, use_threads=used.append, on_round=lambda *at: rounds.append(at)
    )
    assert "".join(calls) == "abcbcacababc"
    assert used == [1, 2, 3, 2, 3, 1, 3, 1, 2, 1, 2, 3]
    assert rounds == [(0, 3), (1, 3), (2, 3), (3, 3)]
    assert [each.rounds for each in timings] == [3, 3, 3]
    assert all(each.median_ms == 1 for each in timings)


def test_median_and_quartiles_of_a_unit() -> None:
    # the first round, however slow, doesn't count
    times = iter([1000.0, 8.0, 2.0, 6.0, 4.0, 100.0])
    contender = Contender("x", lambda: next(times), units=2, threads=1)
    (result,) = alternate([contender], rounds=5, use_threads=timing.use_threads)
    assert result.median_ms == 3.0
    assert result.spread_ms == pytest.approx(4.0 - 2.0)
    assert result.rounds == 5


def test_one_round_has_no_spread() -> None:
    contender = Contender("x", lambda: timing.clocked_ms(lambda: None), units=1, threads=1)
    (result,) = alternate([contender], rounds=1, use_threads=timing.use_threads)
    assert result.spread_ms == 0.0
    assert result.median_ms > 0


@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="threads are pinned on Linux only")
def test_the_process_stays_free_to_run_anywhere() -> None:
    before = os.sched_getaffinity(0)
    for threads in (1, 2):
        timing.use_threads(threads)
        assert os.sched_getaffinity(0) == before
