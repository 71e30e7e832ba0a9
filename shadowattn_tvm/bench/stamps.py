"""Stamps of pipelined launches, as milliseconds."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tvm
from numpy.typing import NDArray

from tir_kernels.build import build_kernels
from tir_kernels.clock import read_clock
from tir_kernels.shadow.list_stages import ATTEND, PILOT

from ..compiler import resolve_target
from ..transform.stamp_stages import BEGIN_COLUMNS, ITEMS_COLUMN, STAMP_COLUMNS, TRACE_VARIABLE

_CLOCK_SAMPLE_S = 0.1
"""Long enough that starting and stopping, some microseconds, don't matter."""

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
    """Where kernels made with `StampStages` append their launches."""

    def __init__(self, path: Path, cycles_per_ms: float) -> None:
        self._path = path
        self._cycles_per_ms = cycles_per_ms

    def take(self) -> list[Launch]:
        """The launches since the last time, in the order in which they ended."""
        stamps = np.fromfile(self._path, np.int64).reshape(-1, STAMP_COLUMNS)
        os.truncate(self._path, 0)
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
        since_start = np.ascontiguousarray((columns - first).T) / self._cycles_per_ms
        pilot_begin, pilot_end, attend_begin, attend_end = since_start
        return Launch(
            pilot_begin,
            pilot_end,
            attend_begin,
            attend_end,
            start_ms=float(first / self._cycles_per_ms),
        )


@contextmanager
def collected_launches() -> Iterator[LaunchFile]:
    """Have the launches of this process written to a file of its own."""
    rate = cycles_per_ms()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "stamps"
        path.touch()
        os.environ[TRACE_VARIABLE] = str(path)
        try:
            yield LaunchFile(path, rate)
        finally:
            del os.environ[TRACE_VARIABLE]


def cycles_per_ms() -> float:
    """The rate of the clock that stamps are taken from."""

    clock = build_kernels({"clock": read_clock()}, resolve_target("host"))["clock"]
    now = tvm.runtime.empty((1,), "int64")

    def sample() -> tuple[float, int]:
        clock(now)
        return time.perf_counter(), int(now.numpy()[0])

    start_s, start_cycles = sample()
    time.sleep(_CLOCK_SAMPLE_S)
    end_s, end_cycles = sample()
    return (end_cycles - start_cycles) / (1e3 * (end_s - start_s))
