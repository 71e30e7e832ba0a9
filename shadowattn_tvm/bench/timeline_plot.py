"""Timelines as a picture: the same work in several ways, and where a machine waits.

Needs matplotlib (the `report` extra).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from ..config.atomic import write_atomically
from ..pipeline.flow import ATTEND, PILOT, SELECT
from .stamps import Launch
from .timeline import Bar, Timeline, launch_timeline, planned

_COLOURS: Mapping[str, str] = {PILOT: "#2f5d8a", SELECT: "#d9a441", ATTEND: "#7aa874"}
_BUBBLE = "#e8b4a0"
_WIDTH_INCHES, _LANE_INCHES, _MARGIN_INCHES, _DPI = 9.0, 0.45, 0.7, 150
_BAR = 0.36


def plot_launch(launch: Launch, title: str, path: Path) -> None:
    """Draw a launch as planned and as measured. Raises like `plot_timelines`."""
    rows = {"planned": planned(launch), "measured": launch}
    timelines = [launch_timeline(name, each) for name, each in rows.items()]
    plot_timelines(timelines, title, path)


def plot_timelines(timelines: Sequence[Timeline], title: str, path: Path) -> None:
    """Draw timelines below each other to `path`, a .png or .svg. Raises `OutputError`."""
    lanes = [len(timeline.machines) for timeline in timelines]
    height = sum(lanes) * _LANE_INCHES + (1 + len(lanes)) * _MARGIN_INCHES
    figure = Figure(figsize=(_WIDTH_INCHES, height), layout="constrained")
    FigureCanvasAgg(figure)
    end_ms = max(timeline.end_ms for timeline in timelines)
    rows = figure.subplots(len(timelines), 1, squeeze=False, height_ratios=lanes)[:, 0]
    for axes, timeline in zip(rows, timelines, strict=True):
        _draw(axes, timeline)
        axes.set_title(f"{timeline.name}: {timeline.end_ms:.2f} ms", fontsize=9, loc="left")
        axes.set_xlim(0, end_ms)
    rows[-1].set_xlabel("ms from the first pilot; pale: a machine waits")
    stages = {
        bar.stage for timeline in timelines for bars in timeline.machines.values() for bar in bars
    }
    rows[0].legend(
        handles=[Patch(color=_COLOURS[s], label=s) for s in _COLOURS if s in stages],
        loc="lower right",
        bbox_to_anchor=(1.0, 1.0),
        ncols=len(stages),
        fontsize=8,
        frameon=False,
    )
    figure.suptitle(title, fontsize=10)
    kind = path.suffix.lower().removeprefix(".")
    metadata = {"Software": None} if kind == "png" else {"Date": None}
    with write_atomically(path) as staged:
        figure.savefig(staged, dpi=_DPI, format=kind, metadata=metadata)


def _draw(axes: Axes, timeline: Timeline) -> None:
    heights = range(len(timeline.machines) - 1, -1, -1)
    axes.set_yticks(list(heights), list(timeline.machines))
    axes.set_ylim(-0.5, len(timeline.machines) - 0.5)
    for height, bars in zip(heights, timeline.machines.values(), strict=True):
        axes.barh(height, timeline.end_ms, height=2 * _BAR, color=_BUBBLE, linewidth=0)
        _draw_bars(axes, height, bars)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _draw_bars(axes: Axes, height: float, bars: Sequence[Bar]) -> None:
    axes.broken_barh(
        [(bar.begin_ms, bar.end_ms - bar.begin_ms) for bar in bars],
        (height - _BAR, 2 * _BAR),
        facecolors=[_COLOURS[bar.stage] for bar in bars],
        edgecolor="white",
        linewidth=0.3,
    )
