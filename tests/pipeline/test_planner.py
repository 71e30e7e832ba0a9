"""Orders of heads: valid, never worse than taking them in turn, optimal where that is known."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from shadowattn_tvm.errors import ConfigError
from shadowattn_tvm.pipeline import (
    HeadCost,
    Order,
    Pipeline,
    lower_bound_ms,
    makespan_ms,
    plan_heads,
    timeline,
)
from shadowattn_tvm.pipeline.bounds import pilot_work_ms
from shadowattn_tvm.pipeline.flow import ATTEND, PILOT, SELECT
from shadowattn_tvm.pipeline.johnson import johnson_order, lagged_makespan
from shadowattn_tvm.pipeline.planner import Scorer, in_turn, insertion

COST = st.integers(0, 40).map(lambda quarter: quarter / 4)  # sums are exact
TOLERANCE = 1e-9


def pipelines(max_heads: int, *, max_launch: int = 4, shared: bool | None = None):  # type: ignore[no-untyped-def]
    heads = st.lists(
        st.builds(HeadCost, st.integers(0, 2), COST, COST), min_size=1, max_size=max_heads
    )
    return st.builds(
        Pipeline,
        heads.map(tuple),
        st.lists(COST, min_size=1, max_size=max_launch).map(tuple),
        st.booleans() if shared is None else st.just(shared),
        st.booleans(),
    )


@given(pipelines(12))
@example(Pipeline((HeadCost(0, 0.0, 0.0),), (0.0,), False))
def test_a_plan_is_an_order_between_the_bound_and_in_turn(pipeline: Pipeline) -> None:
    plan = plan_heads(pipeline)
    assert plan.makespan_ms == pytest.approx(makespan_ms(pipeline, plan.order))
    assert plan.makespan_ms <= makespan_ms(pipeline, in_turn(pipeline)) + TOLERANCE
    assert plan.lower_bound_ms == lower_bound_ms(pipeline) <= plan.makespan_ms + TOLERANCE


@settings(max_examples=40, deadline=None)
@given(pipelines(7, max_launch=1, shared=True))
def test_on_two_machines_nothing_is_better(pipeline: Pipeline) -> None:
    score = Scorer(pipeline)
    heads = range(len(pipeline.heads))
    least = min(score([(head,) for head in order]) for order in itertools.permutations(heads))
    plan = plan_heads(pipeline)
    assert plan.makespan_ms == pytest.approx(least)
    assert plan.lower_bound_ms == pytest.approx(least)  # Johnson's optimum is the bound


@settings(max_examples=40, deadline=None)
@given(pipelines(5, max_launch=3))
def test_no_order_and_no_launches_beat_the_bound(pipeline: Pipeline) -> None:
    least = min(makespan_ms(pipeline, order) for order in every_order(pipeline))
    assert lower_bound_ms(pipeline) <= least + TOLERANCE
    assert plan_heads(pipeline).makespan_ms >= least - TOLERANCE


def every_order(pipeline: Pipeline) -> list[Order]:
    """All sequences of heads, cut into launches in all ways that are allowed."""
    orders = []
    count = len(pipeline.heads)
    for heads in itertools.permutations(range(count)):
        for cuts in itertools.product((False, True), repeat=count - 1):
            launches = [[heads[0]]]
            for head, cut in zip(heads[1:], cuts, strict=True):
                if cut:
                    launches.append([head])
                else:
                    launches[-1].append(head)
            alike = all(len({pipeline.heads[h].bucket for h in group}) == 1 for group in launches)
            if alike and max(map(len, launches)) <= len(pipeline.launch_ms):
                orders.append(tuple(map(tuple, launches)))
    return orders


@given(st.lists(st.tuples(COST, COST, COST), min_size=1, max_size=6))
def test_mittens_rule_is_optimal(jobs: list[tuple[float, float, float]]) -> None:
    first, lags, second = zip(*jobs, strict=True)

    def finish(order: tuple[int, ...]) -> float:
        one = two = 0.0
        for job in order:
            one += first[job]
            two = max(two, one + lags[job]) + second[job]
        return two

    least = min(finish(order) for order in itertools.permutations(range(len(jobs))))
    assert lagged_makespan(first, lags, second) == pytest.approx(least)


@given(pipelines(8))
def test_machines_do_one_thing_at_a_time_and_stages_follow_each_other(pipeline: Pipeline) -> None:
    order = plan_heads(pipeline).order
    spans = timeline(pipeline, order)
    machine_of = {PILOT: 0, SELECT: 1, ATTEND: 1 if pipeline.shared_cpu else 2}
    for machine in range(3):
        busy = sorted((s.start_ms, s.end_ms) for s in spans if machine_of[s.stage] == machine)
        assert all(b[0] >= a[1] - TOLERANCE for a, b in itertools.pairwise(busy))
    for head in range(len(pipeline.heads)):
        pilot, select, attend = (
            next(s for s in spans if s.stage == stage and head in s.heads)
            for stage in (PILOT, SELECT, ATTEND)
        )
        assert pilot.end_ms <= select.start_ms <= select.end_ms <= attend.start_ms
        assert select.end_ms - select.start_ms == pytest.approx(pipeline.heads[head].select_ms)
        assert attend.end_ms - attend.start_ms == pytest.approx(pipeline.heads[head].attend_ms)
    assert max(s.end_ms for s in spans) == pytest.approx(Scorer(pipeline)(order))


def test_lists_that_nobody_takes_keep_the_cpu_from_selecting() -> None:
    heads = (HeadCost(0, 1.0, 5.0), HeadCost(0, 1.0, 1.0), HeadCost(0, 4.0, 1.0))
    free = Pipeline(heads, (1.0,), shared_cpu=False)
    # the second head's lists wait from 3 to 7 ms for the first one's attention to end
    assert makespan_ms(free, in_turn(free)) == pytest.approx(9.0)
    blocking = replace(free, blocking=True)
    assert makespan_ms(blocking, in_turn(blocking)) == pytest.approx(12.0)
    assert plan_heads(blocking).makespan_ms < 12.0


def test_insertion_keeps_every_launch() -> None:
    pipeline = Pipeline(tuple(HeadCost(0, i % 3, i % 4) for i in range(9)), (1.0,), False)
    assert sorted(insertion(in_turn(pipeline), Scorer(pipeline))) == list(in_turn(pipeline))


def test_johnsons_own_rule() -> None:
    # Worked by hand: 1 and 3 have the shorter first stage, 0 and 2 the shorter second.
    assert johnson_order([5.0, 1.0, 8.0, 3.0], [2.0, 6.0, 4.0, 7.0]) == [1, 3, 2, 0]


def test_launches_share_their_overhead() -> None:
    """The paper's launches: 2, 3 and 4 ms for 1, 2 and 4 heads; four heads of 1 ms each."""
    heads = tuple(HeadCost(0, 0.5, 0.5) for _ in range(4))
    pipeline = Pipeline(heads, (2.0, 3.0, 3.5, 4.0), shared_cpu=True)
    assert pilot_work_ms(pipeline) == 4.0
    assert makespan_ms(pipeline, in_turn(pipeline)) == 9.0
    plan = plan_heads(pipeline)
    assert plan.makespan_ms < 8.0
    assert any(len(launch) > 1 for launch in plan.order)


@pytest.mark.parametrize(
    ("order", "message"),
    [
        (((0,),), "every head of 0..2 once"),
        (((0,), (1,), (1,)), "every head of 0..2 once"),
        (((0, 1, 2),), "launches of 1 to 2 heads"),
        (((0,), (1,), (2,), ()), "launches of 1 to 2 heads"),
        (((0,), (1, 2)), r"got buckets \[0, 1\]"),
    ],
)
def test_what_is_no_order_is_refused(order: Order, message: str) -> None:
    heads = (HeadCost(0, 1.0, 1.0), HeadCost(0, 1.0, 1.0), HeadCost(1, 1.0, 1.0))
    with pytest.raises(ConfigError, match=message):
        makespan_ms(Pipeline(heads, (1.0, 1.5), shared_cpu=False), order)


@pytest.mark.parametrize("cost", [-1.0, float("nan"), float("inf")])
def test_impossible_costs_are_refused(cost: float) -> None:
    with pytest.raises(ConfigError, match="select_ms"):
        HeadCost(0, cost, 1.0)
    with pytest.raises(ConfigError, match="launch_ms"):
        Pipeline((HeadCost(0, 1.0, 1.0),), (cost,), shared_cpu=True)
    with pytest.raises(ConfigError, match="at least one head"):
        Pipeline((), (1.0,), shared_cpu=True)
