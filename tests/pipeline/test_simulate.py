"""A layer simulated from a cost table: orders against each other and the bound."""

from __future__ import annotations

import pytest

from shadowattn_tvm.config.devices import device_costs
from shadowattn_tvm.errors import ConfigError
from shadowattn_tvm.pipeline import Shape, simulate_layer
from shadowattn_tvm.plan import Plan, Sharing
from tests.plan.tiny_plan import cost_model, shared_lists

PHONE = device_costs("snapdragon-8-gen-3").costs
SHAPE = Shape(queries=128, keys=2048)
RATIOS = (0.02, 0.1, 0.3, 0.5, 0.2, 0.7)


def test_fused_and_ordered_is_done_earlier_than_in_turn(tiny_plan: Plan) -> None:
    plan = shared_lists(tiny_plan, Sharing(query_block=8), RATIOS)
    simulation = simulate_layer(plan, PHONE, SHAPE)
    assert [order.name for order in simulation.orders[:2]] == ["in turn", "most kept first"]
    in_turn, planned = simulation.in_turn, simulation.planned
    assert planned.name.startswith("planned (")
    # six launches of one head: 1 ms fixed, 1 ms a head of 64 dims, a quarter for 16
    pilots = [span for span in in_turn.spans if span.stage == "pilot"]
    assert [span.end_ms - span.start_ms for span in pilots] == pytest.approx([1.25] * 6)
    assert any(len(launch) > 1 for launch in planned.order)
    assert simulation.lower_bound_ms <= planned.makespan_ms < in_turn.makespan_ms


def test_the_plans_own_order_is_one_of_those_compared(tiny_plan: Plan) -> None:
    plan = shared_lists(tiny_plan, Sharing(query_block=8), RATIOS)
    own = (3, (0, 1), 2, 5, 4)
    plan = plan.model_copy(update={"head_order": (own,) * 3})
    _, compiled, _ = simulate_layer(plan, PHONE, SHAPE, layer=2).orders
    assert compiled.name == "the plan's"
    assert compiled.order == ((3,), (0, 1), (2,), (5,), (4,))


def test_by_default_the_layer_with_most_work(tiny_plan: Plan) -> None:
    plan = shared_lists(tiny_plan, Sharing(query_block=8), (0.1,) * 6)
    more = tuple(h.model_copy(update={"keep_ratio": 0.4}) for h in plan.layers[2].heads)
    layers = (*plan.layers[:2], plan.layers[2].model_copy(update={"heads": more}))
    plan = plan.model_copy(update={"layers": layers})
    assert simulate_layer(plan, PHONE, SHAPE).layer == 2
    assert simulate_layer(plan, PHONE, SHAPE, layer=1).layer == 1


@pytest.mark.parametrize(
    ("shape", "layer", "message"),
    [
        (SHAPE, 3, "--layer: expected 0 to 2, got 3"),
        (SHAPE, -1, "--layer: expected 0 to 2, got -1"),
        (SHAPE, 0, "every head of layer 0"),
        (Shape(queries=128, keys=5), None, "--context: the plan keeps all of 5 tokens"),
    ],
)
def test_what_has_no_pipeline(
    shape: Shape, layer: int | None, message: str, tiny_plan: Plan
) -> None:
    with pytest.raises(ConfigError, match=message):
        simulate_layer(shared_lists(tiny_plan), cost_model(), shape, layer)
