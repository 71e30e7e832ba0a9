"""The order in which the units of every layer take their turn in a compiled pipeline."""

from __future__ import annotations

from ..config.cost_model import CostModel
from ..plan import Plan
from .johnson import johnson_order
from .layer_jobs import Shape, layer_jobs
from .planner import plan_heads

UnitOrder = tuple[tuple[int, ...], ...]
"""`[layer][position]`."""


def compiled_order(plan: Plan) -> UnitOrder:
    """What the kernels are compiled with: the plan's own order, else who keeps most first."""
    return most_kept_first(plan) if plan.head_order is None else plan.head_order


def most_kept_first(plan: Plan) -> UnitOrder:
    """With pilots that all take the same time this is Johnson's rule, so no order of a two-machine
    pipeline is done earlier."""
    orders = []
    for layer in plan.layers:
        attend = [head.keep_ratio for head in layer.heads[:: plan.unit_heads]]
        pilot = [max(attend)] * len(attend)
        orders.append(tuple(johnson_order(pilot, attend)))
    return tuple(orders)


def planned_order(plan: Plan, costs: CostModel, shape: Shape) -> UnitOrder:
    """The order that `plan_heads` finds from the costs, at one shape; units in turn where a layer
    runs dense. Raises like `layer_jobs`."""
    orders = []
    for layer in range(plan.model.num_layers):
        jobs = layer_jobs(plan, layer, costs, shape)
        if jobs is None:
            orders.append(tuple(range(plan.num_units)))
        else:
            orders.append(jobs.unit_order(plan_heads(jobs.pipeline).order))
    return tuple(orders)
