"""`calibrate --stage-costs`, what it measures: a time for every list, by who it belongs to."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from shadowattn_tvm.bench.stage_times import list_times, measure_lists
from shadowattn_tvm.bench.stamps import Launch
from shadowattn_tvm.errors import CompileError, ConfigError
from tests.tir_kernels.shadow.test_lists import K_MIN, PILOTS, SMALL, plan_of
from tir_kernels.constants import RATIO_ONE
from tir_kernels.spec import keep_count

POOLED = plan_of(SMALL, PILOTS["group-block-16"])


def launch(pilot_ms: list[float], attend_ms: list[float]) -> Launch:
    begin = np.zeros(len(pilot_ms))
    return Launch(begin, np.array(pilot_ms), begin, np.array(attend_ms))


def test_items_are_told_apart_by_the_order_of_units() -> None:
    spec = replace(POOLED, launches=(((1,), (0,)), ((0,), (1,))))
    rounds = [
        launch([1, 2, 3, 4], [5, 6, 7, 8]),
        launch([1, 9, 3, 4], [5, 6, 7, 0]),
        launch([1, 8, 3, 4], [5, 6, 7, 9]),
    ]
    times = list(list_times(spec, layer=0, context=100, chunk=20, launches=rounds))
    assert [(time.unit, time.queries) for time in times] == [(1, 16), (1, 4), (0, 16), (0, 4)]
    assert [time.pilot_ms for time in times] == [1, 8, 3, 4]  # medians over rounds
    assert [time.attend_ms for time in times] == [5, 6, 7, 8]
    kept = [keep_count(100, spec.heads[0][head].keep_ratio_q16, K_MIN) for head in (3, 0)]
    assert [time.kept for time in times] == [kept[0]] * 2 + [kept[1]] * 2
    assert {(time.layer, time.heads, time.keys) for time in times} == {(0, 3, 100)}


def test_units_that_run_dense_have_no_lists() -> None:
    layer = tuple(
        replace(head, keep_ratio_q16=RATIO_ONE if h < 3 else RATIO_ONE // 5)
        for h, head in enumerate(POOLED.heads[0])
    )
    spec = replace(POOLED, heads=(layer, POOLED.heads[1]))
    rounds = [launch([0, 0, 3, 4], [0, 0, 7, 8])]
    times = list(list_times(spec, layer=0, context=100, chunk=20, launches=rounds))
    assert [(time.unit, time.pilot_ms) for time in times] == [(1, 3), (1, 4)]


def test_every_list_of_every_context_is_measured() -> None:
    times = measure_lists(POOLED, contexts=(100, 200), chunk=20, rounds=2)
    whose = [(time.keys, time.layer, time.unit, time.queries) for time in times]
    assert sorted(whose) == sorted(
        (keys, layer, unit, queries)
        for keys in (100, 200)
        for layer in (0, 1)
        for unit in (0, 1)
        for queries in (16, 4)
    )
    assert all(time.pilot_ms > 0 and time.attend_ms > 0 for time in times)


def test_what_has_no_pipeline() -> None:
    with pytest.raises(CompileError, match="needs shared lists"):
        measure_lists(plan_of(SMALL, PILOTS["plain"]), contexts=(100,), chunk=20, rounds=1)
    with pytest.raises(ConfigError, match=f"keeps all of {K_MIN} tokens"):
        measure_lists(POOLED, contexts=(100, K_MIN), chunk=20, rounds=1)
