"""A layer's pipeline as a device's cost table says it would run: nothing runs anywhere."""

from __future__ import annotations

from dataclasses import dataclass

from ..config.cost_model import CostModel
from ..errors import ConfigError
from ..plan import Plan
from .flow import Order, Span, timeline
from .layer_jobs import LayerJobs, Shape, layer_jobs
from .planner import in_turn, plan_heads
from .unit_order import compiled_launches


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
    def shared_cpu(self) -> bool:
        """Whether one machine selects and attends."""
        return self.jobs.pipeline.shared_cpu

    @property
    def in_turn(self) -> SimulatedOrder:
        return self.orders[0]

    @property
    def planned(self) -> SimulatedOrder:
        return self.orders[-1]


def simulate_layer(
    plan: Plan, costs: CostModel, shape: Shape, layer: int | None = None
) -> Simulation:
    """One layer of a plan, by default the one with most work, heads launched one by one.

    Raises `ConfigError` for a layer that the plan doesn't have or that runs dense, and for costs
    that don't fit the plan.
    """
    if layer is None:
        layer = _busiest_layer(plan, costs, shape)
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
        "most kept first" if plan.head_order is None else "the plan's": jobs.job_launches(
            compiled_launches(plan)[layer]
        ),
        f"planned ({planned.rule})": planned.order,
    }
    simulated = tuple(
        SimulatedOrder(name, order, timeline(jobs.pipeline, order))
        for name, order in orders.items()
    )
    return Simulation(layer, shape, jobs, simulated, planned.lower_bound_ms)


def _busiest_layer(plan: Plan, costs: CostModel, shape: Shape) -> int:
    work_ms = dict[int, float]()
    for layer in range(plan.model.num_layers):
        jobs = layer_jobs(plan, layer, costs, shape)
        if jobs is not None:
            spans = timeline(jobs.pipeline, in_turn(jobs.pipeline))
            work_ms[layer] = sum(span.end_ms - span.start_ms for span in spans)
    if not work_ms:
        raise ConfigError(
            f"--context: the plan keeps all of {shape.keys} tokens in every head; expected a "
            f"longer context"
        )
    return max(work_ms, key=work_ms.__getitem__)
