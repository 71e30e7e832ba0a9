"""What all result documents share: strict, frozen, finite."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

FiniteFloat = Annotated[float, Field(allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]
Count = Annotated[int, Field(ge=0)]
Interval = Annotated[tuple[FiniteFloat, FiniteFloat], Field(strict=False)]
"""Lower and upper end."""


class TaskResult(BaseModel):
    """Base of every part of a result file: unknown keys, NaN and infinities are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
