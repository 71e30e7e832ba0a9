"""Time to the first token against the prompt's length.

Counterpart of the end-to-end figure of "Dynamic Sparse Attention on Mobile SoCs".
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .growth_plot import GrowthLine, plot_growth
from .model_document import ModelContenderName, PrefillRow

_STYLES: dict[ModelContenderName, tuple[str, str]] = {
    "shadow": ("#c0394b", "o"),
    "dense": ("#31688e", "s"),
    "torch": ("#7aa874", "^"),
    "llama_cpp": ("#9a9a9a", "D"),
}
"""Colour and marker."""

_MS_PER_S = 1e3


def plot_prefill(rows: Sequence[PrefillRow], title: str, path: Path) -> None:
    """Draw a line a contender, to a .png or .svg. Raises like `plot_growth`."""
    lines = []
    for name, (colour, marker) in _STYLES.items():
        own = [row for row in rows if row.contender == name]
        if own:
            points = sorted((row.prompt_tokens, row.ttft_ms / _MS_PER_S) for row in own)
            lines.append(GrowthLine(f"{name} ({own[0].weights})", colour, marker, points))
    plot_growth(
        lines,
        title=title,
        x_label="tokens of the prompt",
        y_label="seconds to the first token",
        path=path,
    )
