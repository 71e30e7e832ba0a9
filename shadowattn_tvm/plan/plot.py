"""The layer x head map of a plan: keep ratios and scales, as a picture.

Needs matplotlib, which the `report` extra installs; drawn off screen, without pyplot's state.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..config.atomic import write_atomically
from ..errors import ConfigError
from .document import Plan
from .ratios import RatioProfile, plan_keep_ratios

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Rows = Sequence[Sequence[float]]
"""`[layer][head]`."""

PLOT_SUFFIXES = (".png", ".svg")

_RATIO_COLOURS = "viridis"
_SCALE_COLOURS = "cividis"
"""Both keep their order in print and for colour-blind readers."""

_SPARSE_COLOUR, _DENSE_COLOUR, _MEAN_COLOUR = "#31688e", "#9a9a9a", "#c0394b"

_RATIO_GAMMA = 0.5
"""Most ratios are small: the square root gives them half of the colours."""

_INCHES_PER_HEAD, _INCHES_PER_LAYER = 0.26, 0.19
_MEAN_INCHES = 1.6
_MAX_PANEL_INCHES = 12.0
"""A model of 126 layers and 128 heads still gives a picture that viewers open."""


def require_plotting(path: Path) -> None:
    """Raise `ConfigError` unless a plot can be drawn and its file name says as what."""
    if path.suffix.lower() not in PLOT_SUFFIXES:
        raise ConfigError(
            f"--plot: expected a file name ending in {' or '.join(PLOT_SUFFIXES)}, got "
            f"{path.name!r}"
        )
    if importlib.util.find_spec("matplotlib") is None:
        raise ConfigError(
            "plots need matplotlib, which is not installed: pip install 'shadowattn-tvm[report]'"
        )


def plot_plan(plan: Plan, title: str, path: Path) -> None:
    """Draw keep ratios, their layers' means, and the scales of Q (a column a query head) and K (a
    column a KV head). Raises `ConfigError` as `require_plotting`, `OutputError`."""
    require_plotting(path)
    group = plan.model.num_q_heads // plan.model.num_kv_heads
    q_scales = [[head.q_scale for head in layer.heads] for layer in plan.layers]
    k_scales = [[head.k_scale for head in layer.heads[::group]] for layer in plan.layers]
    widths = [plan.model.num_q_heads, None, plan.model.num_q_heads, plan.model.num_kv_heads]
    figure, axes = _figure(widths, plan.model.num_layers, title)
    _draw_ratios(figure, axes[0], axes[1], plan_keep_ratios(plan), plan.dense_layers)
    _draw_scales(figure, axes[2], q_scales, "Q scale", "query head")
    _draw_scales(figure, axes[3], k_scales, "K scale", "KV head")
    _save(figure, path)


def plot_profile(profile: RatioProfile, title: str, path: Path) -> None:
    """Draw keep ratios and their layers' means. Raises as `plot_plan`."""
    require_plotting(path)
    figure, axes = _figure([profile.num_q_heads, None], profile.num_layers, title)
    _draw_ratios(figure, axes[0], axes[1], profile.keep_ratios, profile.dense_layers)
    _save(figure, path)


def _figure(
    columns: Sequence[int | None], num_layers: int, title: str
) -> tuple[Figure, list[Axes]]:
    """A figure with a panel for each entry, as wide as its heads (None: the bars of means)."""
    from matplotlib.figure import Figure

    widths = [_MEAN_INCHES if n is None else _inches(1.5, _INCHES_PER_HEAD * n) for n in columns]
    height = _inches(3.0, _INCHES_PER_LAYER * num_layers) + 1.4
    figure = Figure(figsize=(sum(widths) + 0.9 * len(widths) + 0.5, height), layout="constrained")
    figure.suptitle(title, fontsize=11, x=0.01, ha="left")
    axes = figure.subplots(1, len(widths), sharey=True, squeeze=False, width_ratios=widths)[0]
    axes[0].set_ylabel("layer")
    return figure, list(axes)


def _inches(least: float, wanted: float) -> float:
    return min(max(least, wanted), _MAX_PANEL_INCHES)


def _draw_ratios(
    figure: Figure, heat: Axes, bars: Axes, rows: Rows, dense_layers: Sequence[int]
) -> None:
    from matplotlib.colors import PowerNorm
    from matplotlib.ticker import PercentFormatter

    norm = PowerNorm(_RATIO_GAMMA, vmin=0.0, vmax=1.0)
    image = heat.imshow(rows, cmap=_RATIO_COLOURS, norm=norm, aspect="auto", interpolation="none")
    _label_heads(heat, "keep ratio", "query head", len(rows[0]), len(rows))
    bar = figure.colorbar(image, ax=heat, location="bottom", ticks=[0, 0.05, 0.2, 0.5, 1])
    bar.ax.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))

    means = [sum(row) / len(row) for row in rows]
    colours = [_DENSE_COLOUR if i in dense_layers else _SPARSE_COLOUR for i in range(len(rows))]
    bars.barh(range(len(rows)), means, color=colours, height=0.8)
    overall = sum(means) / len(means)
    bars.axvline(overall, color=_MEAN_COLOUR, linewidth=1.2)
    bars.set_xlabel(f"all layers: {overall:.1%}", color=_MEAN_COLOUR)
    bars.set_xlim(0, 1)
    bars.xaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    bars.set_title("mean of a layer" + (" (grey: dense)" if dense_layers else ""), fontsize=9)
    bars.spines[["top", "right"]].set_visible(False)


def _draw_scales(figure: Figure, axes: Axes, rows: Rows, title: str, columns: str) -> None:
    from matplotlib.colors import LogNorm
    from matplotlib.ticker import FormatStrFormatter, NullLocator

    low = min(min(row) for row in rows)
    high = max(max(row) for row in rows)
    # Scales are steps of a factor; equal ones still need a range to be drawn.
    norm = LogNorm(vmin=low, vmax=high if high > low else low * 1.01)
    image = axes.imshow(rows, cmap=_SCALE_COLOURS, norm=norm, aspect="auto", interpolation="none")
    _label_heads(axes, title, columns, len(rows[0]), len(rows))
    bar = figure.colorbar(image, ax=axes, location="bottom", ticks=[low, (low * high) ** 0.5, high])
    bar.ax.xaxis.set_major_formatter(FormatStrFormatter("%.3g"))
    bar.ax.xaxis.set_minor_locator(NullLocator())


def _label_heads(axes: Axes, title: str, columns: str, num_heads: int, num_layers: int) -> None:
    axes.set_title(title, fontsize=9)
    axes.set_xlabel(columns)
    axes.set_xticks(range(0, num_heads, max(1, -(-num_heads // 16))))
    axes.set_yticks(range(0, num_layers, max(1, -(-num_layers // 16))))


def _save(figure: Figure, path: Path) -> None:
    from matplotlib import rc_context

    suffix = path.suffix.lower().removeprefix(".")
    # No date and no random names inside: the same plan gives the same bytes.
    metadata: dict[str, Any] = {"Date": None} if suffix == "svg" else {"Software": None}
    with write_atomically(path) as staged, rc_context({"svg.hashsalt": "shadowattn"}):
        figure.savefig(staged, format=suffix, dpi=150, metadata=metadata)
