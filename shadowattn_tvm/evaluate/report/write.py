"""A sweep's files in a folder: KIND.json, KIND.md, KIND.png."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from ...config.atomic import write_atomically, write_text_atomically
from ...config.json_layout import write_document
from ...errors import ConfigError
from ..sweep_document import SweepDocument
from .markdown import markdown


def require_plots() -> None:
    """Raise `ConfigError` where plots can't be drawn: better before hours of measuring."""
    if importlib.util.find_spec("matplotlib") is None:
        raise ConfigError(
            "sweeps draw plots with matplotlib, which is not installed: "
            "pip install 'shadowattn-tvm[report]'"
        )


def write_report(document: SweepDocument, folder: Path) -> tuple[Path, ...]:
    """Write the JSON, the table and the plot, each whole or not at all; earlier ones of the same
    kind give way. Returns their paths. Raises `OutputError`, and `ConfigError` as
    `require_plots`."""
    require_plots()
    from .plots import plot

    stem = folder / document.kind
    written = tuple(stem.with_suffix(suffix) for suffix in (".json", ".md", ".png"))
    write_document(written[0], document)
    write_text_atomically(written[1], markdown(document))
    with write_atomically(written[2]) as staged:
        plot(document, staged)
    return written
