"""Stages as events of the trace format that Chrome and Perfetto read.

Source: "Trace Event Format", Google; complete events (`ph` "X") and metadata (`ph` "M").
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

from .stamps import Launch
from .timeline import CPU, NPU, Bar, Timeline, launch_timeline

_PROCESS = 1
_STAND_INS = {NPU: "NPU (a core stands in)", CPU: "CPU worker"}
_US_PER_MS = 1e3


class _Event(BaseModel):
    model_config = ConfigDict(frozen=True, allow_inf_nan=False)

    name: str
    ph: Literal["X", "M"]
    pid: int
    tid: int
    ts: float | None = None
    dur: float | None = None
    args: dict[str, int | str]


class TraceDocument(BaseModel):
    """A trace file; times in microseconds from the first event. `otherData`: what is traced."""

    model_config = ConfigDict(frozen=True)

    displayTimeUnit: Literal["ms"] = "ms"  # noqa: N815 - the format's spelling
    otherData: dict[str, str]  # noqa: N815
    traceEvents: tuple[_Event, ...]  # noqa: N815


def trace_document(launches: Sequence[Launch], num_layers: int) -> TraceDocument:
    """All launches of a prefill, whose layers follow each other chunk by chunk."""
    events = [_named("thread_name", _PROCESS, i, n) for i, n in enumerate(_STAND_INS.values())]
    origin_ms = min((launch.start_ms for launch in launches), default=0.0)
    for index, launch in enumerate(launches):
        where = {"chunk": 1 + index // num_layers, "layer": index % num_layers}
        timeline = launch_timeline("", launch)
        for thread, bars in enumerate(timeline.machines.values()):
            events += _bars(bars, _PROCESS, thread, launch.start_ms - origin_ms, where, "list")
    return TraceDocument(otherData={"kind": "measured"}, traceEvents=tuple(events))


def simulated_document(
    timelines: Sequence[Timeline], description: str, where: Mapping[str, int]
) -> TraceDocument:
    """Simulated timelines, a process each. `where`: what every event is said to belong to."""
    events = list[_Event]()
    for process, timeline in enumerate(timelines, start=1):
        events.append(_named("process_name", process, 0, f"SIMULATED, {timeline.name}"))
        for thread, (machine, bars) in enumerate(timeline.machines.items()):
            events.append(_named("thread_name", process, thread, f"{machine} (simulated)"))
            events += _bars(bars, process, thread, 0.0, where, "units")
    data = {"kind": "simulated", "description": description}
    return TraceDocument(otherData=data, traceEvents=tuple(events))


def _named(what: str, process: int, thread: int, name: str) -> _Event:
    return _Event(name=what, ph="M", pid=process, tid=thread, args={"name": name})


def _bars(
    bars: Sequence[Bar],
    process: int,
    thread: int,
    offset_ms: float,
    where: Mapping[str, int],
    items: str,
) -> Iterator[_Event]:
    for bar in bars:
        only = bar.items[0] if len(bar.items) == 1 else " ".join(map(str, bar.items))
        yield _Event(
            name=bar.stage,
            ph="X",
            pid=process,
            tid=thread,
            ts=round(_US_PER_MS * (offset_ms + bar.begin_ms), 3),
            dur=round(_US_PER_MS * (bar.end_ms - bar.begin_ms), 3),
            args={**where, items: only},
        )
