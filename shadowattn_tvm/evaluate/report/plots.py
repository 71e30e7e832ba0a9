"""A sweep as one plot: every point with its interval. Needs matplotlib (the `report` extra)."""

from __future__ import annotations

from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ..sweep_document import Point, SweepDocument
from .titles import CHANGE, TITLES

_WIDTH_INCHES, _DPI = 7.0, 150
_BASE, _OTHER, _ZERO = "#b3401f", "#2f5d8a", "#888888"
"""The base point, the others, and the dense model's line: apart in grey as well."""

_LINEAR_PERCENT = 1.0
"""Losses span three orders of magnitude where NPU-Full is among them: beyond this the axis is
logarithmic."""


def plot(document: SweepDocument, path: Path) -> None:
    """Draw `document` to `path` (PNG)."""
    axis = TITLES[document.kind].axis
    numbered = axis is not None and all(point.value is not None for point in document.points)
    height = 4.0 if numbered else 1.6 + 0.42 * len(document.points)
    figure = Figure(figsize=(_WIDTH_INCHES, height), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    if numbered:
        _draw_curve(axes, document)
        axes.set_xlabel(str(axis))
    else:
        _draw_rows(axes, document)
    axes.set_title(
        f"{TITLES[document.kind].heading}\n{document.model}, {len(document.windows)} windows of "
        f"{document.context_tokens} tokens",
        fontsize=10,
    )
    axes.grid(alpha=0.25)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.savefig(path, dpi=_DPI, metadata={"Software": None})


def _draw_curve(axes: Axes, document: SweepDocument) -> None:
    points = sorted(document.points, key=lambda point: point.value or 0.0)
    axes.plot(
        [point.value or 0.0 for point in points],
        [point.against_dense.percent for point in points],
        color=_OTHER,
        linewidth=1,
        alpha=0.6,
    )
    for point in points:
        axes.errorbar(
            [point.value or 0.0],
            [point.against_dense.percent],
            yerr=[[length] for length in _arms(point)],
            fmt="o",
            capsize=4,
            color=_colour(point, document),
        )
    axes.axhline(0.0, color=_ZERO, linewidth=1, linestyle="--")
    axes.set_ylabel(CHANGE)
    if _spans_far(document):
        axes.set_yscale("symlog", linthresh=_LINEAR_PERCENT)


def _draw_rows(axes: Axes, document: SweepDocument) -> None:
    for row, point in enumerate(document.points):
        axes.errorbar(
            [point.against_dense.percent],
            [row],
            xerr=[[length] for length in _arms(point)],
            fmt="o",
            capsize=4,
            color=_colour(point, document),
        )
        axes.annotate(
            f"{point.against_dense.percent:+.2f}",
            (point.against_dense.percent, row),
            textcoords="offset points",
            xytext=(0, 7),
            ha="center",
            fontsize=8,
        )
    axes.set_yticks(range(len(document.points)), [point.label for point in document.points])
    axes.set_ylim(len(document.points) - 0.5, -0.7)
    axes.axvline(0.0, color=_ZERO, linewidth=1, linestyle="--")
    axes.set_xlabel(CHANGE)
    if _spans_far(document):
        axes.set_xscale("symlog", linthresh=_LINEAR_PERCENT)


def _arms(point: Point) -> tuple[float, float]:
    """Lengths of the error bar below and above the point."""
    difference = point.against_dense
    low, high = difference.ci95_percent
    return max(difference.percent - low, 0.0), max(high - difference.percent, 0.0)


def _colour(point: Point, document: SweepDocument) -> str:
    return _BASE if point.label == document.base else _OTHER


def _spans_far(document: SweepDocument) -> bool:
    changes = [abs(point.against_dense.percent) for point in document.points]
    return max(changes) > 20 * _LINEAR_PERCENT
