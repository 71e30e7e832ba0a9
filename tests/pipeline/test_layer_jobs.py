"""A layer of a plan as jobs: costs by hand, who brings jobs, and orders of units."""

from __future__ import annotations

import pytest

from shadowattn_tvm.config.cost_model import FusedLaunch
from shadowattn_tvm.errors import ConfigError
from shadowattn_tvm.pipeline import Shape, layer_jobs
from shadowattn_tvm.plan import Plan, Sharing
from tests.plan.tiny_plan import cost_model, shared_lists

SHAPE = Shape(queries=20, keys=1000)
RATIOS = (0.125, 0.2, 0.3, 1.0, 0.25, 0.5)


def test_a_job_for_every_list(tiny_plan: Plan) -> None:
    plan = shared_lists(tiny_plan, Sharing(query_block=8), RATIOS)
    jobs = layer_jobs(plan, 1, cost_model(), SHAPE)
    assert jobs is not None
    assert jobs.unit_of_job == (0, 0, 0, 1, 1, 1, 2, 2, 2, 4, 4, 4, 5, 5, 5)
    assert jobs.dense_units == (3,)  # keeps everything
    assert jobs.pipeline.launch_ms == pytest.approx((1.0,))
    whole, _, short = jobs.pipeline.heads[:3]  # 8, 8 and 4 queries to 125 keys, 50 ns each
    assert whole.select_ms == short.select_ms == pytest.approx((1000 + 2 * 1000) * 1e-6)
    assert whole.attend_ms == pytest.approx(8 * 125 * 50e-6)
    assert short.attend_ms == pytest.approx(4 * 125 * 50e-6)


def test_a_job_for_every_group_whose_heads_are_launched_together(tiny_plan: Plan) -> None:
    plan = shared_lists(
        tiny_plan, Sharing(gqa_group=True, query_block=8), (0.125,) * 3 + (0.2,) * 3
    )
    launches = tuple(FusedLaunch(heads=n, ms=1.0 + 0.5 * n) for n in (1, 2, 4, 6))
    costs = cost_model(covers="chunk", queries=20, launches=launches, fixed_ms=0.0)
    jobs = layer_jobs(plan, 1, costs, SHAPE)
    assert jobs is not None
    assert jobs.unit_of_job == (0, 1)
    # a group of 3 heads takes the graph of 4, two groups that of 6
    assert jobs.pipeline.launch_ms == pytest.approx((3.0, 4.0))
    first = jobs.pipeline.heads[0]
    assert first.select_ms == pytest.approx(3 * 3000e-6)  # lists of 8, 8 and 4 queries
    assert first.attend_ms == pytest.approx(3 * 20 * 125 * 50e-6)


def test_a_group_larger_than_any_graph_takes_several_launches(tiny_plan: Plan) -> None:
    plan = shared_lists(tiny_plan, Sharing(gqa_group=True), (0.1,) * 6)
    launches = (FusedLaunch(heads=1, ms=1.0), FusedLaunch(heads=2, ms=1.5))
    jobs = layer_jobs(plan, 1, cost_model(covers="chunk", queries=20, launches=launches), SHAPE)
    assert jobs is not None
    assert jobs.pipeline.launch_ms == pytest.approx((2.5,))


def test_every_query_has_its_list_where_none_are_shared(tiny_plan: Plan) -> None:
    jobs = layer_jobs(tiny_plan, 1, cost_model(covers="chunk"), SHAPE)
    assert jobs is not None
    assert jobs.pipeline.heads[0].select_ms == pytest.approx(20 * 3000e-6)
    assert jobs.unit_of_job == (0, 1, 2, 3, 4, 5)


def test_dense_layers_and_short_pasts_bring_no_jobs(tiny_plan: Plan) -> None:
    plan = shared_lists(tiny_plan)
    assert layer_jobs(plan, 0, cost_model(), SHAPE) is None
    assert layer_jobs(plan, 1, cost_model(), Shape(20, plan.k_min)) is None
    assert layer_jobs(plan, 1, cost_model(), Shape(20, plan.k_min + 1)) is not None


def test_costs_by_the_list_need_shared_lists(tiny_plan: Plan) -> None:
    with pytest.raises(ConfigError, match="selects for each query and head"):
        layer_jobs(tiny_plan, 1, cost_model(), SHAPE)


def test_orders_of_jobs_and_of_units(tiny_plan: Plan) -> None:
    plan = shared_lists(tiny_plan, Sharing(query_block=16), RATIOS)
    jobs = layer_jobs(plan, 1, cost_model(), Shape(queries=32, keys=1000))
    assert jobs is not None
    assert jobs.unit_of_job == (0, 0, 1, 1, 2, 2, 4, 4, 5, 5)
    order = jobs.job_launches(((5,), (3,), (0, 4), (2,), (1,)))
    assert order == ((8,), (9,), (0,), (1,), (6,), (7,), (4,), (5,), (2,), (3,))
    units = jobs.unit_launches(order)
    assert units == ((5,), (0,), (4,), (2,), (1,), (3,))  # what runs dense has no turn
    mixed = jobs.unit_launches(((9, 0), (8, 1), *((job,) for job in range(2, 8))))
    assert mixed == ((5,), (0,), (1,), (2,), (4,), (3,))
