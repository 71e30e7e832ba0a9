"""`bench pipeline` on a small plan: stamps make sense, and rows follow from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from shadowattn_tvm.bench import HERE, AttentionGrid, bench_pipeline
from shadowattn_tvm.bench.inputs import LayerInputs, SlotCall, random_inputs
from shadowattn_tvm.bench.kernels import stamped_kernels
from shadowattn_tvm.bench.pipeline import Launches, row_of, timed
from shadowattn_tvm.bench.stamps import Launch, collected_launches
from shadowattn_tvm.errors import CompileError, ConfigError
from tests.tir_kernels.shadow.test_lists import PILOTS, SMALL, plan_of
from tir_kernels.constants import RATIO_ONE
from tir_kernels.spec import ShadowSpec

POOLED = plan_of(SMALL, PILOTS["group-block-16"])
NUM_QUERIES, NUM_KEYS = 50, 300
NUM_ITEMS = 2 * 4  # groups times blocks of 16 queries


def grid(spec: ShadowSpec = POOLED) -> AttentionGrid:
    return AttentionGrid(
        spec=spec,
        plan="a plan",
        contexts=(NUM_KEYS,),
        chunks=(NUM_QUERIES,),
        workers=(1,),
        rounds=3,
        inputs="random",
    )


def one_layer(num_queries: int, num_keys: int) -> Sequence[LayerInputs]:
    return [random_inputs(SMALL, num_queries, num_keys, seed=3)]


def test_schedules_compute_the_same_and_the_row_follows_from_their_stamps() -> None:
    (inputs,) = one_layer(NUM_QUERIES, NUM_KEYS)
    calls = [(layer, SlotCall(SMALL, inputs, layer, HERE.device)) for layer in range(2)]
    kernels = stamped_kernels(HERE, POOLED)
    with collected_launches() as collected:
        launches = timed(HERE, grid(), kernels, calls, collected, lambda done, total: None)
    assert list(launches) == ["pipelined", "per_launch", "sequential"]
    for rounds in launches.values():
        assert [len(layers) for layers in rounds] == [2, 2, 2]
        for launch in (launch for layers in rounds for launch in layers):
            assert launch.pilot_begin.shape == (NUM_ITEMS,)
            # nothing is attended to before its pilot is done, and no machine is in two places
            assert (launch.pilot_ms > 0).all()
            assert (launch.attend_ms > 0).all()
            assert (launch.attend_begin >= launch.pilot_end).all()
            assert (launch.pilot_begin[1:] >= launch.pilot_end[:-1]).all()
            assert (launch.attend_begin[1:] >= launch.attend_end[:-1]).all()
            assert launch.makespan_ms == launch.attend_end.max()
    for launch in launches["sequential"][0]:
        assert (launch.pilot_begin[1:] >= launch.attend_end[:-1]).all()
    row = row_of(grid(), NUM_KEYS, NUM_QUERIES, launches)
    assert (row.context, row.chunk, row.items, row.rounds) == (NUM_KEYS, NUM_QUERIES, NUM_ITEMS, 3)
    assert max(row.pilot_ms, row.attend_ms) <= row.lower_bound_ms <= row.pilot_ms + row.attend_ms
    assert row.lower_bound_ms <= row.makespan_ms


def launch(pilot: list[tuple[float, float]], attend: list[tuple[float, float]]) -> Launch:
    return Launch(
        *(np.array(column) for column in (*zip(*pilot, strict=True), *zip(*attend, strict=True)))
    )


def test_a_row_by_hand() -> None:
    # Johnson: the short pilot first; 1, then 4 beside the attention of 2, then 3: 1 + 4 + 3 = 8
    piped = launch([(0, 4), (4, 5)], [(4, 7), (7, 9)])
    slower = launch([(0, 4), (4, 5)], [(4.5, 7.5), (7.5, 9.5)])
    apart = launch([(0, 4), (7, 8)], [(4, 7), (8, 10)])
    rounds = [[piped, piped], [slower, slower], [piped, slower]]
    launches: Launches = {
        "pipelined": rounds,
        "per_launch": [[slower, slower]] * 3,
        "sequential": [[apart, apart]] * 3,
    }
    row = row_of(grid(), NUM_KEYS, NUM_QUERIES, launches)
    assert (row.pilot_ms, row.attend_ms, row.lower_bound_ms) == (5.0, 5.0, 8.0)
    assert (row.makespan_ms, row.per_launch_ms, row.sequential_ms) == (9.25, 9.5, 10.0)
    assert row.spread_ms == pytest.approx(0.25)
    assert row.items == 2


def test_a_context_that_stays_dense_has_no_pipeline() -> None:
    everything = tuple(
        tuple(replace(head, keep_ratio_q16=RATIO_ONE) for head in layer) for layer in POOLED.heads
    )
    with pytest.raises(ConfigError, match="keeps all of 300 tokens in every head"):
        next(bench_pipeline(grid(replace(POOLED, heads=everything)), one_layer))


def test_a_plan_without_shared_lists_has_no_pipeline() -> None:
    with pytest.raises(CompileError, match="needs shared lists"):
        next(bench_pipeline(grid(plan_of(SMALL, PILOTS["plain"])), one_layer))
