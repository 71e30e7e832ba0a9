"""The order of a plan's units in the pipeline: as its document has it, and as the planner does."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

FusedUnits = Annotated[tuple[int, ...], Field(strict=False, min_length=2)]
"""Units that the NPU is launched for together, in the order in which they go on."""

HeadOrder = Annotated[
    tuple[Annotated[tuple[int | FusedUnits, ...], Field(strict=False)], ...], Field(strict=False)
]
"""`[layer][position]`: a unit of a plan, by number, or several that are launched together."""

UnitLaunches = tuple[tuple[tuple[int, ...], ...], ...]
"""`[layer][launch][position]`: the same, launches of one unit and of several alike."""


def head_order(launches: UnitLaunches) -> HeadOrder:
    """Launches as a plan's document has them."""
    return tuple(
        tuple(launch[0] if len(launch) == 1 else launch for launch in layer) for layer in launches
    )


def unit_launches(order: HeadOrder) -> UnitLaunches:
    """The launches of a plan's document."""
    return tuple(
        tuple((turn,) if isinstance(turn, int) else turn for turn in layer) for layer in order
    )
