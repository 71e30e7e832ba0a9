"""What `calibrate --stage-costs` measured, as a plan records it."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from ..config.cost_model import CostModel, NonNegativeFloat, PositiveInt


class StageCosts(BaseModel):
    """Costs of a plan's stages on one machine, and how they were measured.

    Attributes
    ----------
    model : fitted to the lists' stage times.
    pilot_error, attend_error : the median over all measured lists of |fitted - measured| /
        measured; attend includes selection.
    machine : where it was measured, in words; a core of it stood in for the NPU.
    contexts, chunk_tokens : older tokens and queries measured.
    planned_context : the older tokens that the head order is planned for.
    rounds : of which a list's time is the median.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    model: CostModel
    pilot_error: NonNegativeFloat
    attend_error: NonNegativeFloat
    machine: str
    contexts: Annotated[tuple[PositiveInt, ...], Field(strict=False, min_length=1)]
    chunk_tokens: PositiveInt
    planned_context: PositiveInt
    rounds: PositiveInt
    created: Annotated[datetime, Field(strict=False)]
    tool_version: str
