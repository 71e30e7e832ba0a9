"""A chunk's attention against what is older than it.

Counterpart of the attention figure of "Dynamic Sparse Attention on Mobile SoCs".
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from .document import AttentionContender, AttentionRow
from .growth_plot import GrowthLine, plot_growth

_STYLES: dict[tuple[AttentionContender, bool], tuple[str, str, str]] = {
    ("shadow", False): ("shadowAttn, one core", "#e08a96", "o"),
    ("shadow", True): ("shadowAttn, a core for the NPU's part", "#c0394b", "o"),
    ("cg_full", False): ("C/G-Full", "#31688e", "s"),
    ("cg_sparse", False): ("C/G-Sparse", "#6a4c93", "v"),
    ("cg_block_sparse", False): ("C/G-Block-Sparse", "#d9a441", "P"),
    ("npu_full", False): ("NPU-Full", "#3b3b3b", "X"),
    ("torch_sdpa", False): ("torch", "#7aa874", "^"),
    ("mlc_tir", False): ("TVM's own", "#9a9a9a", "D"),
}
"""Label, colour and marker, by contender and whether it has workers beside the NPU's stand-in."""


def plot_attention(rows: Sequence[AttentionRow], title: str, path: Path) -> None:
    """Draw a line a contender, of the smallest chunk and of the most workers where there are
    several, to a .png or .svg. Raises like `plot_growth`."""
    chunk = min(row.chunk for row in rows)
    most = max(row.workers for row in rows)
    lines = []
    for (name, has_workers), (label, colour, marker) in _STYLES.items():
        workers = most if has_workers else 0
        own = [row for row in rows if (row.contender, row.workers) == (name, workers)]
        points = sorted((row.context, row.median_ms) for row in own if row.chunk == chunk)
        if points and (workers > 0) == has_workers:
            lines.append(GrowthLine(label, colour, marker, points))
    plot_growth(
        lines,
        title=f"{title}, {chunk} queries",
        x_label="older tokens",
        y_label="ms a layer",
        path=path,
    )
