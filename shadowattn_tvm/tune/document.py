"""What a tuning run's file says."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat, PositiveInt

from ..config.json_layout import write_document
from ..evaluate.document import Count, TaskResult
from ..evaluate.results import Machine, Versions


class TuningRow(TaskResult):
    """One kernel's search.

    `measured` and `failed` count tiles; `reason` is what the last failure said. Times are the
    shortest: `hand_chosen_ms` of `hand_chosen`, `best_ms` of `best`, the tile that `compile` will
    take; None where nothing was measured.
    """

    kernel: str
    space: PositiveInt
    measured: Count
    failed: Count
    reason: str | None
    hand_chosen: dict[str, int]
    hand_chosen_ms: PositiveFloat | None
    best: dict[str, int] | None
    best_ms: PositiveFloat | None


class Tuning(TaskResult):
    """A tuning file: what was tuned, for what, and how it went. `runner`: `local`, or `rpc` where a
    device behind a tracker was measured, not `machine`, which then only searched."""

    schema_version: Literal[1] = 1
    created: Annotated[datetime, Field(strict=False)]
    command: Annotated[tuple[str, ...], Field(strict=False)]
    versions: Versions
    machine: Machine
    runner: Literal["local", "rpc"]
    target: dict[str, Any]
    trials: PositiveInt
    seed: Count
    rows: Annotated[tuple[TuningRow, ...], Field(strict=False)]


def save_tuning(tuning: Tuning, path: Path) -> None:
    """Write a tuning file atomically. Raises `OutputError`."""
    write_document(path, tuning)
