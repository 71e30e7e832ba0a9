"""A layer's pipeline as a device's cost table says it would run: nothing runs anywhere."""

from __future__ import annotations

from dataclasses import dataclass

from ..config.cost_model import CostModel
from ..errors import ConfigError
from ..plan import Plan
from .flow import Order, Span, makespan_ms, timeline
from .layer_jobs import LayerJobs, Shape, layer_jobs
from .planner import in_turn, plan_heads
from .unit_order import compiled_order


@dataclass(frozen=True)
class SimulatedOrder:
    """An order of a layer's jobs, what it is called, and when every stage begins and ends."""

    name: str
    order: Order
    spans: tuple[Span, ...]

    @property
    def makespan_ms(self) -> float:
        return max(span.end_ms for span in self.spans)


@dataclass(frozen=True)
class Simulation:
    """One layer in several orders, and what none can beat.

    Attributes
    ----------
    orders : units in turn, as the kernel would take them, and planned for the device.
    """

    layer: int
    shape: Shape
    jobs: LayerJobs
    orders: tuple[SimulatedOrder, ...]
    lower_bound_ms: float

    @property
    def in_turn(self) -> SimulatedOrder:
        return self.orders[0]

    @property
    def planned(self) -> SimulatedOrder:
        return self.orders[-1]


def simulate_layer(
    plan: Plan, costs: CostModel, shape: Shape, layer: int | None = None
) -> Simulation:
    """One layer of a plan, by default the one that takes longest in turn.

    Raises `ConfigError` for a layer that the plan doesn't have or that runs dense, and for costs
    that don't fit the plan.
    """
    if layer is None:
        layer = _longest_layer(plan, costs, shape)
    elif not 0 <= layer < plan.model.num_layers:
        raise ConfigError(f"--layer: expected 0 to {plan.model.num_layers - 1}, got {layer}")
    jobs = layer_jobs(plan, layer, costs, shape)
    if jobs is None:
        raise ConfigError(
            f"--layer: the plan keeps all of {shape.keys} tokens in every head of layer {layer}, "
            f"so that it has no pipeline; expected another layer, or a longer context"
        )
    planned = plan_heads(jobs.pipeline)
    orders = {
        "in turn": in_turn(jobs.pipeline),
        "most kept first" if plan.head_order is None else "the plan's": jobs.one_by_one(
            compiled_order(plan)[layer]
        ),
        f"planned ({planned.rule})": planned.order,
    }
    simulated = tuple(
        SimulatedOrder(name, order, timeline(jobs.pipeline, order))
        for name, order in orders.items()
    )
    return Simulation(layer, shape, jobs, simulated, planned.lower_bound_ms)


def _longest_layer(plan: Plan, costs: CostModel, shape: Shape) -> int:
    longest, longest_ms = None, 0.0
    for layer in range(plan.model.num_layers):
        jobs = layer_jobs(plan, layer, costs, shape)
        if jobs is not None:
            in_turn_ms = makespan_ms(jobs.pipeline, in_turn(jobs.pipeline))
            if longest is None or in_turn_ms > longest_ms:
                longest, longest_ms = layer, in_turn_ms
    if longest is None:
        raise ConfigError(
            f"--context: the plan keeps all of {shape.keys} tokens in every head; expected a "
            f"longer context"
        )
    return longest
