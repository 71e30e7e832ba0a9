"""The order in which the units of every layer take their turn in a compiled pipeline."""

from __future__ import annotations

from ..config.cost_model import CostModel
from ..plan import Plan, UnitLaunches, unit_launches
from .flow import makespan_ms
from .johnson import johnson_order
from .layer_jobs import Shape, layer_jobs
from .planner import plan_heads


def compiled_launches(plan: Plan) -> UnitLaunches:
    """What the kernels are compiled with: the plan's own order, else who keeps most first."""
    return most_kept_first(plan) if plan.head_order is None else unit_launches(plan.head_order)


def in_turn_launches(plan: Plan) -> UnitLaunches:
    """Every unit by itself, by number."""
    return (tuple((unit,) for unit in range(plan.num_units)),) * plan.model.num_layers


def most_kept_first(plan: Plan) -> UnitLaunches:
    """One by one. With pilots that all take the same time this is Johnson's rule, so no order of a
    two-machine pipeline is done earlier."""
    orders = []
    for layer in plan.layers:
        attend = [head.keep_ratio for head in layer.heads[:: plan.unit_heads]]
        pilot = [max(attend)] * len(attend)
        orders.append(tuple((unit,) for unit in johnson_order(pilot, attend)))
    return tuple(orders)


def planned_launches(plan: Plan, costs: CostModel, shape: Shape) -> UnitLaunches:
    """What `plan_heads` finds from the costs, at one shape; units in turn where a layer runs dense.
    Units are launched together where a launch covers their chunks. Raises like `layer_jobs`."""
    planned = []
    for layer, in_turn in enumerate(in_turn_launches(plan)):
        jobs = layer_jobs(plan, layer, costs, shape)
        if jobs is None:
            planned.append(in_turn)
        else:
            planned.append(jobs.unit_launches(plan_heads(jobs.pipeline).order))
    return tuple(planned)


def all_layers_ms(plan: Plan, launches: UnitLaunches, costs: CostModel, shape: Shape) -> float:
    """All layers' pipelines, one after the other, in ms. Raises like `layer_jobs`."""
    total = 0.0
    for layer, units in enumerate(launches):
        jobs = layer_jobs(plan, layer, costs, shape)
        if jobs is not None:
            total += makespan_ms(jobs.pipeline, jobs.job_launches(units))
    return total
