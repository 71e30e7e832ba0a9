"""Tiles as traces: every size is a decision, and comes back from the annotations."""

from __future__ import annotations

import pytest
import tvm
from tvm.s_tir import Schedule

from tir_kernels.features import AVX2
from tir_kernels.tuning.definitions import definition
from tir_kernels.tuning.schedule import annotated_sizes, schedule_of
from tir_kernels.tuning.space import sizes_of, tile_space
from tir_kernels.tuning.workloads import Workload

from .small_workloads import WORKLOADS

every_workload = pytest.mark.parametrize("workload", WORKLOADS, ids=lambda w: w.name)


@every_workload
def test_sizes_come_back(workload: Workload) -> None:
    for tile in list(tile_space(workload, AVX2))[::17]:
        schedule = schedule_of(workload, tile)
        assert annotated_sizes(schedule.mod) == sizes_of(workload, tile)
        assert len(schedule.trace.decisions) == len(sizes_of(workload, tile))


@every_workload
def test_a_trace_replays(workload: Workload) -> None:
    *_, tile = tile_space(workload, AVX2)
    replayed = Schedule(definition(workload))
    schedule_of(workload, tile).trace.apply_to_schedule(replayed, remove_postproc=False)
    assert annotated_sizes(replayed.mod) == sizes_of(workload, tile)


def test_a_definition_has_no_sizes_of_its_own() -> None:
    for workload in WORKLOADS:
        assert annotated_sizes(definition(workload)) == {}


@every_workload
def test_definitions_do_not_depend_on_where_we_are_installed(workload: Workload) -> None:
    first, second = (tvm.ir.save_json(definition(workload)) for _ in range(2))
    assert first == second
    assert ".py" not in first
