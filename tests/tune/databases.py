"""Databases as `shadowattn tune` writes them, with times that a test makes up."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import tvm
from tvm.s_tir import meta_schedule as ms

from shadowattn_tvm.compiler.tuning import target_folder
from tir_kernels.features import cpu_features
from tir_kernels.tuning.definitions import ENTRY, definition
from tir_kernels.tuning.schedule import schedule_of
from tir_kernels.tuning.space import tile_space
from tir_kernels.tuning.workloads import Tile, Workload


def write_database(
    logs: Path,
    workload: Workload,
    target: tvm.target.Target,
    times_s: Mapping[Tile, Sequence[float]],
    measured_on: tvm.target.Target | None = None,
) -> Path:
    """Add records to the target's database in `logs`; `measured_on` says another target in them.
    Returns its folder."""
    folder = logs / target_folder(target)
    folder.mkdir(parents=True, exist_ok=True)
    database = ms.database.JSONDatabase(work_dir=str(folder))
    module = definition(workload)
    known = database.commit_workload(module)
    arguments = ms.arg_info.ArgInfo.from_prim_func(module[ENTRY])
    for tile, seconds in times_s.items():
        trace = schedule_of(workload, tile).trace
        record = ms.database.TuningRecord(
            trace, known, list(seconds), measured_on or target, arguments
        )
        database.commit_tuning_record(record)
    return folder


def some_tiles(workload: Workload, target: tvm.target.Target) -> tuple[Tile, Tile, Tile]:
    """The hand-chosen tile, and two others."""
    first, *_, other, last = tile_space(workload, cpu_features(target))
    return first, other, last
