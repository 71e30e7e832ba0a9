"""Orders of units for the kernel: optimal for the lists of all of them, and whole."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shadowattn_tvm.pipeline import (
    Shape,
    compiled_order,
    layer_jobs,
    lower_bound_ms,
    makespan_ms,
    planned_order,
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
    orders = planned_order(plan, cost_model(), SHAPE)
    assert [sorted(units) for units in orders] == [list(range(6))] * 3
    assert orders[0] == (0, 1, 2, 3, 4, 5)  # dense
    assert orders[1] == orders[2]
    jobs = layer_jobs(plan, 1, cost_model(), SHAPE)
    if jobs is not None:
        kernel_ms = makespan_ms(jobs.pipeline, jobs.one_by_one(orders[1]))
        assert kernel_ms == pytest.approx(lower_bound_ms(jobs.pipeline))


def test_the_plans_order_is_compiled_else_who_keeps_most_comes_first(tiny_plan: Plan) -> None:
    plan = shared_lists(tiny_plan, Sharing(query_block=8), (0.1, 0.2, 0.3, 0.9, 0.25, 0.5))
    assert compiled_order(plan) == ((3, 5, 2, 4, 1, 0),) * 3
    order = ((0, 1, 2, 3, 4, 5), (5, 4, 3, 2, 1, 0), (3, 5, 2, 4, 1, 0))
    assert compiled_order(plan.model_copy(update={"head_order": order})) == order


def test_fused_launches_change_the_order(tiny_plan: Plan) -> None:
    """Units that keep little share the last launches; whoever keeps most starts the CPU early."""
    plan = shared_lists(tiny_plan, Sharing(query_block=8), (0.1, 0.2, 0.3, 0.9, 0.25, 0.5))
    planned = planned_order(plan, cost_model(covers="chunk"), SHAPE)
    assert planned[1][0] == 3
    assert sorted(planned[1]) == list(range(6))
