"""Stages as events of the trace format that Chrome and Perfetto read.

Source: "Trace Event Format", Google; complete events (`ph` "X") and metadata (`ph` "M").
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

from pydantic import BaseModel, ConfigDict

from tir_kernels.shadow.list_stages import ATTEND, PILOT

from .stamps import Doubles, Launch

_PROCESS = 1
_THREADS = {PILOT: 0, ATTEND: 1}
_NAMES = {PILOT: "NPU (a core stands in)", ATTEND: "CPU worker"}
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
    """A trace file; times in microseconds from the first event."""

    model_config = ConfigDict(frozen=True)

    displayTimeUnit: Literal["ms"] = "ms"  # noqa: N815 - the format's spelling
    traceEvents: tuple[_Event, ...]  # noqa: N815


def trace_document(launches: Sequence[Launch], num_layers: int) -> TraceDocument:
    """All launches of a prefill, whose layers follow each other chunk by chunk."""
    events = list(_names())
    origin_ms = min((launch.start_ms for launch in launches), default=0.0)
    for index, launch in enumerate(launches):
        where = {"chunk": 1 + index // num_layers, "layer": index % num_layers}
        offset_ms = launch.start_ms - origin_ms
        events += _stage(PILOT, launch.pilot_begin, launch.pilot_end, offset_ms, where)
        events += _stage(ATTEND, launch.attend_begin, launch.attend_end, offset_ms, where)
    return TraceDocument(traceEvents=tuple(events))


def _names() -> Iterator[_Event]:
    for stage, thread in _THREADS.items():
        yield _Event(
            name="thread_name", ph="M", pid=_PROCESS, tid=thread, args={"name": _NAMES[stage]}
        )


def _stage(
    stage: str, begin: Doubles, end: Doubles, offset_ms: float, where: dict[str, int]
) -> Iterator[_Event]:
    for item, (start_ms, end_ms) in enumerate(zip(begin, end, strict=True)):
        yield _Event(
            name=stage,
            ph="X",
            pid=_PROCESS,
            tid=_THREADS[stage],
            ts=round(_US_PER_MS * float(offset_ms + start_ms), 3),
            dur=round(_US_PER_MS * float(end_ms - start_ms), 3),
            args={**where, "list": item},
        )
