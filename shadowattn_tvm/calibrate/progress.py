"""How long calibration has to go is told by its stages, window by window."""

from __future__ import annotations

from collections.abc import Callable

StageProgress = Callable[[str, int, int], None]
"""Called with (stage, windows done, windows in all) after each window of a stage."""


def silent(stage: str, done: int, total: int) -> None:
    """Tell nobody."""
