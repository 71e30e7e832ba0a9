"""Stages on machines over time, measured or simulated: what pictures and traces are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tir_kernels.shadow.list_stages import ATTEND, PILOT

from ..pipeline import SimulatedOrder, Simulation
from .stamps import Doubles, Launch

NPU, CPU, GPU = "NPU", "CPU", "GPU"


@dataclass(frozen=True)
class Bar:
    """A stage on a machine, in ms from the timeline's start; `items`: lists or units, by number."""

    stage: str
    begin_ms: float
    end_ms: float
    items: tuple[int, ...]


@dataclass(frozen=True)
class Timeline:
    """What it is, and the bars of each machine."""

    name: str
    machines: Mapping[str, tuple[Bar, ...]]

    @property
    def end_ms(self) -> float:
        return max(bar.end_ms for bars in self.machines.values() for bar in bars)


def launch_timeline(name: str, launch: Launch) -> Timeline:
    """A launch, measured or planned."""
    return Timeline(
        name,
        {
            NPU: _bars(PILOT, launch.pilot_begin, launch.pilot_end),
            CPU: _bars(ATTEND, launch.attend_begin, launch.attend_end),
        },
    )


def planned(launch: Launch) -> Launch:
    """The same stages if nothing but the other machine ever delayed one."""
    pilot_end = np.cumsum(launch.pilot_ms)
    attend_end = np.empty_like(pilot_end)
    free = 0.0
    for item, (ready, duration) in enumerate(zip(pilot_end, launch.attend_ms, strict=True)):
        free = max(free, float(ready)) + float(duration)
        attend_end[item] = free
    return Launch(pilot_end - launch.pilot_ms, pilot_end, attend_end - launch.attend_ms, attend_end)


def simulated_timeline(simulation: Simulation, order: SimulatedOrder) -> Timeline:
    """An order of a simulated layer; items are units of the plan."""
    machines: dict[str, list[Bar]] = {}
    for span in order.spans:
        units = tuple(dict.fromkeys(simulation.jobs.unit_of_job[job] for job in span.heads))
        bar = Bar(span.stage, span.start_ms, span.end_ms, units)
        machines.setdefault(_machine(span.stage, simulation.shared_cpu), []).append(bar)
    return Timeline(order.name, {name: tuple(bars) for name, bars in machines.items()})


def _machine(stage: str, shared_cpu: bool) -> str:
    if stage == PILOT:
        return NPU
    return GPU if stage == ATTEND and not shared_cpu else CPU


def _bars(stage: str, begin: Doubles, end: Doubles) -> tuple[Bar, ...]:
    spans = enumerate(zip(begin.tolist(), end.tolist(), strict=True))
    return tuple(Bar(stage, start_ms, end_ms, (item,)) for item, (start_ms, end_ms) in spans)
