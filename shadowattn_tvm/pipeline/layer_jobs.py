"""One layer of a plan as a flow shop: which jobs its units bring, and what they cost on a device.

A unit is who may have lists of its own: a query head, or a group of query heads that share theirs.
Where a launch of the pilot covers a chunk, a unit is one job; where it covers a list, every block
of queries is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from tir_kernels.constants import RATIO_ONE
from tir_kernels.spec import keep_count

from ..config.cost_model import CostModel
from ..errors import ConfigError
from ..plan import Plan
from .flow import HeadCost, Launch, Order, Pipeline


@dataclass(frozen=True)
class Shape:
    """A prefill chunk: its queries, and the keys older than it."""

    queries: int
    keys: int


@dataclass(frozen=True)
class LayerJobs:
    """A layer's flow shop.

    Attributes
    ----------
    pipeline : a "head" of it is a job.
    unit_of_job : by job.
    dense_units : those that keep everything; they pass no pipeline.
    """

    pipeline: Pipeline
    unit_of_job: tuple[int, ...]
    dense_units: tuple[int, ...]

    @property
    def covers_units(self) -> bool:
        """Whether every unit is one job, so that launches of jobs are launches of units."""
        return len(set(self.unit_of_job)) == len(self.unit_of_job)

    def unit_launches(self, order: Order) -> tuple[Launch, ...]:
        """All units as their first jobs come in `order`, launched as their jobs are if every unit
        is one job, else one by one; then those that run dense."""
        if self.covers_units:
            launches = [tuple(self.unit_of_job[job] for job in launch) for launch in order]
        else:
            come = dict.fromkeys(self.unit_of_job[job] for launch in order for job in launch)
            launches = [(unit,) for unit in come]
        return (*launches, *((unit,) for unit in self.dense_units))

    def job_launches(self, launches: Sequence[Launch]) -> Order:
        """The jobs of all units, launched as `launches` of units say if every unit is one job, and
        as far as there are graphs of that size; else one by one, those of a unit in turn."""
        jobs_of_unit: dict[int, list[int]] = {}
        for job, unit in enumerate(self.unit_of_job):
            jobs_of_unit.setdefault(unit, []).append(job)
        most = len(self.pipeline.launch_ms) if self.covers_units else 1
        order = list[Launch]()
        for launch in launches:
            jobs = [job for unit in launch for job in jobs_of_unit.get(unit, [])]
            order += [tuple(jobs[i : i + most]) for i in range(0, len(jobs), most)]
        return tuple(order)


def layer_jobs(plan: Plan, layer: int, costs: CostModel, shape: Shape) -> LayerJobs | None:
    """The jobs of a layer; None if all of its units keep everything.

    Raises `ConfigError` for costs by the list of a plan that doesn't share lists.
    """
    by_list = costs.pilot.covers == "list"
    if by_list and not plan.sharing.pooled:
        raise ConfigError(
            "the costs are of lists that queries or heads share, but the plan selects for each "
            "query and head: expected a plan made with --query-block or --share-group"
        )
    block = plan.sharing.query_block
    job_queries = block if by_list else shape.queries
    chunk = _split(shape.queries, job_queries)
    costs_of_jobs, unit_of_job, dense = list[HeadCost](), list[int](), list[int]()
    for unit in range(plan.num_units):
        kept = kept_keys(plan, layer, unit, shape.keys)
        if kept == shape.keys:
            dense.append(unit)
            continue
        for queries in chunk:
            costs_of_jobs.append(_job_cost(plan, costs, layer, unit, queries, shape.keys, kept))
            unit_of_job.append(unit)
    if not unit_of_job:
        return None
    pipeline = Pipeline(
        tuple(costs_of_jobs),
        _launch_costs(plan, costs, _mean_voters(plan, layer, chunk[0]), shape.keys),
        costs.shared_cpu,
        costs.blocking,
    )
    return LayerJobs(pipeline, tuple(unit_of_job), tuple(dense))


def kept_keys(plan: Plan, layer: int, unit: int, num_past: int) -> int:
    """How many of `num_past` keys a unit attends to, by the kernels' integers."""
    if plan.layers[layer].dense:
        return num_past
    ratio = plan.layers[layer].heads[unit * plan.unit_heads].keep_ratio
    return keep_count(num_past, round(ratio * RATIO_ONE), plan.k_min)


def _split(queries: int, job_queries: int) -> list[int]:
    """Queries of each job of a unit, the last maybe fewer."""
    return [min(job_queries, queries - first) for first in range(0, queries, job_queries)]


def _stride(plan: Plan, layer: int, unit: int) -> int:
    return plan.layers[layer].heads[unit * plan.unit_heads].query_stride


def _mean_voters(plan: Plan, layer: int, queries: int) -> int:
    """How many of `queries` vote, over all units: launches are taken to cost the same, whoever is
    in them."""
    shares = [1 / _stride(plan, layer, unit) for unit in range(plan.num_units)]
    return ceil(queries * sum(shares) / len(shares))


def _job_cost(
    plan: Plan, costs: CostModel, layer: int, unit: int, queries: int, keys: int, kept: int
) -> HeadCost:
    # Which scales a head takes shows at run time. Most often it is those calibrated, the grid's
    # centre, for all heads alike: all that have one stride may be launched together.
    may_join = _stride(plan, layer, unit)
    lists = -(-queries // plan.sharing.query_block)
    attend_ms = costs.attend.ms(queries=queries, kept_keys=kept, head_dim=plan.model.head_dim)
    return HeadCost(may_join, costs.select.ms(lists=lists, keys=keys), plan.unit_heads * attend_ms)


def _launch_costs(plan: Plan, costs: CostModel, queries: int, keys: int) -> tuple[float, ...]:
    """Of a launch of 1, 2, ... jobs: as many as fit the largest graph, at least one. The last list
    of a chunk may be shorter than others; its launch is taken to cost the same."""
    most = max(1, costs.pilot.max_heads // plan.unit_heads)
    return tuple(
        costs.pilot.launch_ms(
            jobs * plan.unit_heads, queries=queries, keys=keys, head_dim=plan.model.head_dim
        )
        for jobs in range(1, most + 1)
    )
