"""Orders of units for the kernel: optimal for the lists of all of them, and whole."""

from __future__ import annotations

from itertools import chain

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shadowattn_tvm.config.cost_model import FusedLaunch
from shadowattn_tvm.pipeline import (
    Shape,
    all_layers_ms,
    compiled_launches,
    layer_jobs,
    lower_bound_ms,
    makespan_ms,
    plan_heads,
    planned_launches,
)
from shadowattn_tvm.plan import Plan, Sharing
from tests.plan.tiny_plan import cost_model, shared_lists

SHAPE = Shape(queries=32, keys=1000)


@settings(max_examples=50, deadline=None)
@given(ratios=st.lists(st.integers(1, 100).map(lambda n: n / 100), min_size=6, max_size=6))
def test_with_one_launch_a_list_no_order_of_lists_is_better(
    ratios: list[float], tiny_plan: Plan
) -> None:
    plan = shared_lists(tiny_plan, Sharing(query_block=8), ratios)
    launches = planned_launches(plan, cost_model(), SHAPE)
    assert all(len(launch) == 1 for layer in launches for launch in layer)
    orders = [tuple(chain.from_iterable(layer)) for layer in launches]
    assert [sorted(units) for units in orders] == [list(range(6))] * 3
    assert orders[0] == (0, 1, 2, 3, 4, 5)  # dense
    assert orders[1] == orders[2]
    jobs = layer_jobs(plan, 1, cost_model(), SHAPE)
    if jobs is not None:
        kernel_ms = makespan_ms(jobs.pipeline, jobs.job_launches(launches[1]))
        assert kernel_ms == pytest.approx(lower_bound_ms(jobs.pipeline))


def test_the_plans_order_is_compiled_else_who_keeps_most_comes_first(tiny_plan: Plan) -> None:
    plan = shared_lists(tiny_plan, Sharing(query_block=8), (0.1, 0.2, 0.3, 0.9, 0.25, 0.5))
    assert compiled_launches(plan) == (((3,), (5,), (2,), (4,), (1,), (0,)),) * 3
    order = ((0, 1, 2, 3, 4, 5), (5, (4, 3), 2, 1, 0), ((3, 5, 2), 4, (1, 0)))
    assert compiled_launches(plan.model_copy(update={"head_order": order})) == (
        ((0,), (1,), (2,), (3,), (4,), (5,)),
        ((5,), (4, 3), (2,), (1,), (0,)),
        ((3, 5, 2), (4,), (1, 0)),
    )


def test_fused_launches_change_the_order(tiny_plan: Plan) -> None:
    """Whoever keeps most starts the CPU early; where fusing pays, launches are shared."""
    plan = shared_lists(tiny_plan, Sharing(query_block=8), (0.1, 0.2, 0.3, 0.9, 0.25, 0.5))
    planned = planned_launches(plan, cost_model(covers="chunk"), SHAPE)
    assert planned[1][0] == (3,)
    fused = (FusedLaunch(heads=1, ms=1.0), FusedLaunch(heads=4, ms=1.5))
    costs = cost_model(covers="chunk", launches=fused)
    planned = planned_launches(plan, costs, SHAPE)
    assert planned[0] == ((0,), (1,), (2,), (3,), (4,), (5,))  # dense
    assert max(map(len, planned[1])) > 1
    assert sorted(chain.from_iterable(planned[1])) == list(range(6))
    jobs = layer_jobs(plan, 1, costs, SHAPE)
    assert jobs is not None
    assert jobs.job_launches(planned[1]) == plan_heads(jobs.pipeline).order
    one_by_one = [(unit,) for launch in planned[1] for unit in launch]
    assert all_layers_ms(plan, planned, costs, SHAPE) < all_layers_ms(
        plan, (planned[0], tuple(one_by_one), tuple(one_by_one)), costs, SHAPE
    )


def test_launches_are_split_where_a_device_has_no_graph_of_their_size(tiny_plan: Plan) -> None:
    plan = shared_lists(tiny_plan, Sharing(query_block=8), (0.1, 0.2, 0.3, 1.0, 0.25, 0.5))
    fused = (FusedLaunch(heads=1, ms=1.0), FusedLaunch(heads=2, ms=1.5))
    jobs = layer_jobs(plan, 1, cost_model(covers="chunk", launches=fused), SHAPE)
    assert jobs is not None
    # unit 3 keeps everything and has no job: those of 4 and 5 are numbers 3 and 4
    assert jobs.job_launches(((3, 5, 2, 4), (1, 0))) == ((4, 2), (3,), (1, 0))
    by_list = layer_jobs(plan, 1, cost_model(), SHAPE)
    assert by_list is not None
    assert all(len(launch) == 1 for launch in by_list.job_launches(((3, 5, 2, 4), (1, 0))))
