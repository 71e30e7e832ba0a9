"""The order in which heads pass the pipeline: pure arithmetic, planned before anything runs."""

from .bounds import lower_bound_ms
from .flow import HeadCost, Launch, Order, Pipeline, Span, makespan_ms, timeline
from .layer_jobs import LayerJobs, Shape, kept_keys, layer_jobs
from .planner import HeadPlan, plan_heads
from .simulate import SimulatedOrder, Simulation, simulate_layer
from .unit_order import (
    all_layers_ms,
    compiled_launches,
    in_turn_launches,
    most_kept_first,
    planned_launches,
)

__all__ = [
    "HeadCost",
    "HeadPlan",
    "Launch",
    "LayerJobs",
    "Order",
    "Pipeline",
    "Shape",
    "SimulatedOrder",
    "Simulation",
    "Span",
    "all_layers_ms",
    "compiled_launches",
    "in_turn_launches",
    "kept_keys",
    "layer_jobs",
    "lower_bound_ms",
    "makespan_ms",
    "most_kept_first",
    "plan_heads",
    "planned_launches",
    "simulate_layer",
    "timeline",
]
