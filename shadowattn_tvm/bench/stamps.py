"""Stamps of pipelined launches, as milliseconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import tvm
from numpy.typing import NDArray

from tir_kernels.clock import read_clock
from tir_kernels.shadow.list_stages import ATTEND, PILOT

from ..transform.stamp_stages import BEGIN_COLUMNS, ITEMS_COLUMN, STAMP_COLUMNS
from .rig import HERE, Rig

_CLOCK_QUESTIONS = 5
_CLOCK_SAMPLE_S = 0.1
_CLOCK_SAMPLE_QUESTIONS = 200
"""Between two readings pass so many seconds, or so many times what a reading takes: long enough
that when exactly it was taken doesn't matter."""

Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Launch:
    """When each item's stages began and ended, in ms from the launch's first: `(items,)` each.

    `start_ms`: when the launch's first stage began, on a clock that all launches share.
    """

    pilot_begin: Doubles
    pilot_end: Doubles
    attend_begin: Doubles
    attend_end: Doubles
    start_ms: float = 0.0

    @property
    def pilot_ms(self) -> Doubles:
        return self.pilot_end - self.pilot_begin

    @property
    def attend_ms(self) -> Doubles:
        return self.attend_end - self.attend_begin

    @property
    def makespan_ms(self) -> float:
        return float(max(self.pilot_end.max(), self.attend_end.max()))


class LaunchFile:
    """Where kernels made with `StampStages` append their launches; `take_stamps` as `Rig.traced`
    gives it."""

    def __init__(self, take_stamps: Callable[[], bytes], ticks_per_ms: float) -> None:
        self._take_stamps = take_stamps
        self._ticks_per_ms = ticks_per_ms

    def take(self) -> list[Launch]:
        """The launches since the last time, in the order in which they ended."""
        stamps = np.frombuffer(self._take_stamps(), np.int64).reshape(-1, STAMP_COLUMNS)
        launches, row = [], 0
        while row < len(stamps):
            num_items = int(stamps[row, ITEMS_COLUMN])
            launches.append(self._launch(stamps[row : row + num_items]))
            row += num_items
        return launches

    def _launch(self, stamps: NDArray[np.int64]) -> Launch:
        begins = [BEGIN_COLUMNS[stage] for stage in (PILOT, ATTEND)]
        columns = stamps[:, [column for begin in begins for column in (begin, begin + 1)]]
        first = columns[:, 0].min()
        since_start = np.ascontiguousarray((columns - first).T) / self._ticks_per_ms
        pilot_begin, pilot_end, attend_begin, attend_end = since_start
        return Launch(
            pilot_begin,
            pilot_end,
            attend_begin,
            attend_end,
            start_ms=float(first / self._ticks_per_ms),
        )


@contextmanager
def collected_launches(rig: Rig = HERE) -> Iterator[LaunchFile]:
    """Have the launches of kernels on the rig written to a file of its own."""
    rate = ticks_per_ms(rig)
    with rig.traced() as take_stamps:
        yield LaunchFile(take_stamps, rate)


def ticks_per_ms(rig: Rig) -> float:
    """The rate of the clock that stamps are taken from."""
    clock = rig.build({"clock": read_clock()})["clock"]
    now = tvm.runtime.empty((1,), "int64", rig.device)

    def sample() -> tuple[float, float, int]:
        """How long it took to ask, when that was half done, and what the clock said: of several
        the quickest, since the way to a device takes as long as it likes."""
        samples = []
        for _ in range(_CLOCK_QUESTIONS):
            begin_s = time.perf_counter()
            clock(now)
            took_s = time.perf_counter() - begin_s
            samples.append((took_s, begin_s + took_s / 2, int(now.numpy()[0])))
        return min(samples)

    took_s, start_s, start_ticks = sample()
    time.sleep(max(_CLOCK_SAMPLE_S, _CLOCK_SAMPLE_QUESTIONS * took_s))
    _, end_s, end_ticks = sample()
    return (end_ticks - start_ticks) / (1e3 * (end_s - start_s))
