"""What every sweep is given."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..corpora import Document, Window
from ..plan import Plan
from ..weights import ModelDirectory
from .context import Progress
from .open_model import OpenModel
from .sweep_cache import SweepCache


@dataclass(frozen=True)
class SweepContext:
    """The material of a sweep.

    Attributes
    ----------
    directory : the model.
    plan : the base: a sweep varies one thing of it.
    windows : held-out text.
    model : open, its context and chunks as long as the windows need.
    calibration : texts that variants are calibrated on, never those of `windows`.
    calibration_windows : how many windows of them a variant is calibrated on.
    calibration_folder : where a variant's measurements are kept, to be used again; None keeps none.
    others : plans of the same model for `method`, by name; only their keep ratios and dense layers
        are read.
    cache : losses measured so far.
    progress : told as work proceeds.
    """

    directory: ModelDirectory
    plan: Plan
    windows: tuple[Window, ...]
    model: OpenModel
    calibration: tuple[Document, ...]
    calibration_windows: int
    calibration_folder: Path | None
    others: Mapping[str, Plan]
    cache: SweepCache
    progress: Progress
