"""The order in which heads pass the pipeline: pure arithmetic, planned before anything runs."""

from .bounds import lower_bound_ms
from .flow import HeadCost, Launch, Order, Pipeline, Span, makespan_ms, timeline
from .planner import HeadPlan, plan_heads

__all__ = [
    "HeadCost",
    "HeadPlan",
    "Launch",
    "Order",
    "Pipeline",
    "Span",
    "lower_bound_ms",
    "makespan_ms",
    "plan_heads",
    "timeline",
]
