"""A tile as a MetaSchedule trace: one decision for every size, kept as an annotation.

The schedule leaves the definition's loops as they are. Its decisions are what a database records,
and what a builder reads from the module that it is handed.
"""

from __future__ import annotations

import tvm
from tvm.s_tir import Schedule
from tvm.s_tir.schedule import SBlockRV

from .definitions import BLOCK, ENTRY, definition
from .space import sizes_of, sizes_on_offer
from .workloads import Tile, Workload

SIZE_KEY = "tile."
"""What annotations are called: this, and the size's name."""


def schedule_of(workload: Workload, tile: Tile) -> Schedule:
    """The workload's definition with the decisions for `tile`."""
    schedule = Schedule(definition(workload))
    block: SBlockRV = schedule.get_sblock(BLOCK, ENTRY)
    for name, value in sizes_of(workload, tile).items():
        # the hand-chosen tile needn't be on offer
        candidates = sorted({*sizes_on_offer(workload)[name], value})
        probability = 1.0 / len(candidates)
        chosen = schedule.sample_categorical(
            candidates, [probability] * len(candidates), decision=candidates.index(value)
        )
        schedule.annotate(block, f"{SIZE_KEY}{name}", chosen)
    return schedule


def annotated_sizes(module: tvm.IRModule) -> dict[str, int]:
    """The sizes that a scheduled definition is annotated with."""
    schedule = Schedule(module)
    annotations = schedule.get(schedule.get_sblock(BLOCK, ENTRY)).annotations
    return {
        str(key).removeprefix(SIZE_KEY): int(value)
        for key, value in annotations.items()
        if str(key).startswith(SIZE_KEY)
    }
