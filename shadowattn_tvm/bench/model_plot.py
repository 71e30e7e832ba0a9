"""Time to the first token against the prompt's length, both axes logarithmic.

Needs matplotlib (the `report` extra). Counterpart of the end-to-end figure of "Dynamic Sparse
Attention on Mobile SoCs".
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..config.atomic import write_atomically
from ..plan.plot import require_plotting
from .model_document import ModelContenderName, PrefillRow

_STYLES: dict[ModelContenderName, tuple[str, str]] = {
    "shadow": ("#c0394b", "o"),
    "dense": ("#31688e", "s"),
    "torch": ("#7aa874", "^"),
    "llama_cpp": ("#9a9a9a", "D"),
}
"""Colour and marker: told apart in print too."""

_SIZE_INCHES = (6.0, 4.2)
_MS_PER_S = 1e3


def plot_prefill(rows: Sequence[PrefillRow], title: str, path: Path) -> None:
    """Draw a line a contender, to a .png or .svg. Raises `ConfigError` as `require_plotting` and
    `OutputError`."""
    require_plotting(path)
    from matplotlib import rc_context
    from matplotlib.figure import Figure
    from matplotlib.ticker import FormatStrFormatter, LogLocator, NullFormatter, NullLocator

    figure = Figure(figsize=_SIZE_INCHES, layout="constrained")
    axes = figure.subplots()
    for name, (colour, marker) in _STYLES.items():
        line = sorted((row for row in rows if row.contender == name), key=_length)
        if line:
            seconds = [row.ttft_ms / _MS_PER_S for row in line]
            label = f"{name} ({line[0].weights})"
            axes.plot([*map(_length, line)], seconds, color=colour, marker=marker, label=label)
    lengths = sorted({row.prompt_tokens for row in rows})
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xticks(lengths, [f"{tokens:,}" for tokens in lengths])
    axes.xaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(FormatStrFormatter("%g"))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_xlabel("tokens of the prompt")
    axes.set_ylabel("seconds to the first token")
    axes.set_title(title, fontsize=10, loc="left")
    axes.grid(visible=True, which="both", alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    kind = path.suffix.lower().removeprefix(".")
    # No date and no random names inside: the same rows give the same bytes.
    metadata = {"Date": None} if kind == "svg" else {"Software": None}
    with write_atomically(path) as staged, rc_context({"svg.hashsalt": "shadowattn"}):
        figure.savefig(staged, format=kind, dpi=150, metadata=metadata)


def _length(row: PrefillRow) -> int:
    return row.prompt_tokens
