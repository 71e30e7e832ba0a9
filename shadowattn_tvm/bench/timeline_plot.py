"""One launch as a picture: as planned, as measured, and where a machine waits.

Needs matplotlib (the `report` extra).
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..config.atomic import write_atomically
from .stamps import Doubles, Launch

_PILOT, _ATTEND, _BUBBLE = "#2f5d8a", "#7aa874", "#e8b4a0"
_WIDTH_INCHES, _HEIGHT_INCHES, _DPI = 9.0, 3.2, 150
_BAR = 0.36


def planned(launch: Launch) -> Launch:
    """The same stages if nothing but the other machine ever delayed one."""
    pilot_end = np.cumsum(launch.pilot_ms)
    attend_end = np.empty_like(pilot_end)
    free = 0.0
    for item, (ready, duration) in enumerate(zip(pilot_end, launch.attend_ms, strict=True)):
        free = max(free, float(ready)) + float(duration)
        attend_end[item] = free
    return Launch(pilot_end - launch.pilot_ms, pilot_end, attend_end - launch.attend_ms, attend_end)


def plot_launch(launch: Launch, title: str, path: Path) -> None:
    """Draw a launch to `path`, a .png or .svg. Raises `OutputError`."""
    figure = Figure(figsize=(_WIDTH_INCHES, _HEIGHT_INCHES), layout="constrained")
    FigureCanvasAgg(figure)
    rows = {"planned": planned(launch), "measured": launch}
    end_ms = max(each.makespan_ms for each in rows.values())
    for index, (name, each) in enumerate(rows.items()):
        axes = figure.add_subplot(2, 1, 1 + index)
        _draw(axes, each)
        axes.set_title(f"{name}: {each.makespan_ms:.2f} ms", fontsize=9, loc="left")
        axes.set_xlim(0, end_ms)
    axes.set_xlabel("ms from the first pilot; pale: a machine waits")
    figure.suptitle(title, fontsize=10)
    kind = path.suffix.lower().removeprefix(".")
    metadata = {"Software": None} if kind == "png" else {"Date": None}
    with write_atomically(path) as staged:
        figure.savefig(staged, dpi=_DPI, format=kind, metadata=metadata)


def _draw(axes: Axes, launch: Launch) -> None:
    axes.set_yticks([1, 0], ["NPU", "CPU"])
    axes.set_ylim(-0.5, 1.5)
    stages = (
        (1.0, launch.pilot_begin, launch.pilot_end, _PILOT),
        (0.0, launch.attend_begin, launch.attend_end, _ATTEND),
    )
    for height, begin, end, color in stages:
        axes.barh(height, launch.makespan_ms, height=2 * _BAR, color=_BUBBLE, linewidth=0)
        _bars(axes, height, begin, end, color)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _bars(axes: Axes, height: float, begin: Doubles, end: Doubles, color: str) -> None:
    spans = [(float(b), float(e - b)) for b, e in zip(begin, end, strict=True)]
    axes.broken_barh(
        spans, (height - _BAR, 2 * _BAR), facecolors=color, edgecolor="white", linewidth=0.3
    )
