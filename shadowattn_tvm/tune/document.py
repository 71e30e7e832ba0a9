"""What a tuning run's file says."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveFloat, PositiveInt

from ..config.json_layout import write_document


class TuningRow(BaseModel):
    """One kernel's search.

    `measured` and `failed` count tiles; `reason` is what the last failure said. Times are medians:
    `hand_chosen_ms` of `hand_chosen`, `best_ms` of `best`, the tile that `compile` will take; None
    where nothing was measured.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    kernel: str
    space: PositiveInt
    measured: NonNegativeInt
    failed: NonNegativeInt
    reason: str | None
    hand_chosen: dict[str, int]
    hand_chosen_ms: PositiveFloat | None
    best: dict[str, int] | None
    best_ms: PositiveFloat | None


class Tuning(BaseModel):
    """A tuning file: what was tuned, on what, and how it went. `runner`: `local`, or `rpc` for a
    device behind a tracker."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    schema_version: Literal[1] = 1
    created: Annotated[datetime, Field(strict=False)]
    command: Annotated[tuple[str, ...], Field(strict=False)]
    versions: dict[str, str]
    runner: Literal["local", "rpc"]
    threads: str | None
    target: dict[str, Any]
    trials: PositiveInt
    seed: NonNegativeInt
    rows: Annotated[tuple[TuningRow, ...], Field(strict=False)]


def save_tuning(tuning: Tuning, path: Path) -> None:
    """Write a tuning file atomically. Raises `OutputError`."""
    write_document(path, tuning)
