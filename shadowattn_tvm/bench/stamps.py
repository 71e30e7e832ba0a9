"""Stamps of pipelined launches, as milliseconds."""

from __future__ import annotations

import ctypes
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import tvm
import tvm_ffi
from numpy.typing import NDArray

from tir_kernels.build import build_kernels
from tir_kernels.clock import read_clock
from tir_kernels.shadow.list_stages import ATTEND, PILOT

from ..compiler import resolve_target
from ..transform.stamp_stages import BEGIN_COLUMNS, STAMP_COLUMNS, TRACE_FUNCTION

_CLOCK_SAMPLE_S = 0.1
"""Long enough that starting and stopping, some microseconds, don't matter."""

Doubles = NDArray[np.float64]


@dataclass(frozen=True)
class Launch:
    """When each item's stages began and ended, in ms from the launch's first: `(items,)` each."""

    pilot_begin: Doubles
    pilot_end: Doubles
    attend_begin: Doubles
    attend_end: Doubles

    @property
    def pilot_ms(self) -> Doubles:
        return self.pilot_end - self.pilot_begin

    @property
    def attend_ms(self) -> Doubles:
        return self.attend_end - self.attend_begin

    @property
    def makespan_ms(self) -> float:
        return float(max(self.pilot_end.max(), self.attend_end.max()))


@contextmanager
def collected_launches(cycles_per_ms: float) -> Iterator[list[Launch]]:
    """Collect the launches of kernels made with `StampStages`, in the order in which they end.

    A kernel keeps the first collector that it meets: collect all its launches here, at once.
    """
    launches: list[Launch] = []

    def collect(address: ctypes.c_void_p, num_items: int) -> None:
        cells = ctypes.cast(address, ctypes.POINTER(ctypes.c_int64))
        stamps = np.ctypeslib.as_array(cells, (num_items, STAMP_COLUMNS))
        begins = [BEGIN_COLUMNS[stage] for stage in (PILOT, ATTEND)]
        columns = stamps[:, [column for begin in begins for column in (begin, begin + 1)]]
        since_start = (columns - columns[:, 0].min()) / cycles_per_ms
        launches.append(Launch(*np.ascontiguousarray(since_start.T)))

    tvm.register_global_func(TRACE_FUNCTION, collect, override=True)
    try:
        yield launches
    finally:
        tvm_ffi.registry.remove_global_func(TRACE_FUNCTION)


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
