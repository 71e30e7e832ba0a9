"""Time against length, both axes logarithmic: slope 1 is what grows in proportion.

Needs matplotlib (the `report` extra).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..config.atomic import write_atomically
from ..plan.plot import require_plotting

_SIZE_INCHES = (6.0, 4.2)


@dataclass(frozen=True)
class GrowthLine:
    """A contender. `colour` and `marker` are matplotlib's: told apart in print too.

    Attributes
    ----------
    points : (tokens, time), ascending.
    """

    label: str
    colour: str
    marker: str
    points: Sequence[tuple[int, float]]


def plot_growth(
    lines: Sequence[GrowthLine], *, title: str, x_label: str, y_label: str, path: Path
) -> None:
    """Draw the lines, to a .png or .svg. Raises `ConfigError` as `require_plotting` and
    `OutputError`."""
    require_plotting(path)
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter, NullLocator

    figure = Figure(figsize=_SIZE_INCHES, layout="constrained")
    axes = figure.subplots()
    for line in lines:
        tokens, times = zip(*line.points, strict=True)
        axes.plot(tokens, times, color=line.colour, marker=line.marker, label=line.label)
    lengths = sorted({tokens for line in lines for tokens, _ in line.points})
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(lengths, [f"{tokens:,}" for tokens in lengths])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(FormatStrFormatter("%g"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    axes.set_title(title, fontsize=10, loc="left")
    axes.grid(visible=True, which="both", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    kind = path.suffix.lower().removeprefix(".")
    # No date and no random names inside: the same rows give the same bytes.
    metadata = {"Date": None} if kind == "svg" else {"Software": None}
    with write_atomically(path) as staged, rc_context({"svg.hashsalt": "shadowattn"}):
        figure.savefig(staged, format=kind, dpi=150, metadata=metadata)
