"""Plans that differ from a base plan in one thing, at the same budget unless that is the thing.

What does not depend on the change is taken over from the base plan: keep ratios when the pilot
changes, scales when the ratios change.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tir_kernels.constants import RATIO_ONE
from tir_kernels.spec import Rest

from ..calibrate import (
    CalibrationSettings,
    Method,
    MethodContext,
    PairBudget,
    Ratios,
    StrideChoice,
    Strides,
    calibrate,
    fisher_ratios,
    scale_to_budget,
    uniform_ratios,
    with_ratios,
)
from ..plan import BucketGrid, Pilot, Plan, Sharing
from .sweep_cache import digest_of
from .sweep_context import SweepContext

Doubles = NDArray[np.float64]


def plan_ratios(plan: Plan) -> Ratios:
    """Keep ratios of a plan as the kernels see them, `[layers, query heads]` in 1/65536."""
    return np.array(
        [
            [
                RATIO_ONE if layer.dense else round(head.keep_ratio * RATIO_ONE)
                for head in layer.heads
            ]
            for layer in plan.layers
        ],
        np.int64,
    )


def plan_budget(plan: Plan) -> PairBudget:
    """What the plan's ratio was counted over."""
    source = plan.provenance
    return PairBudget(source.window_tokens, source.prefill_chunk_tokens, plan.k_min)


def smallest_ratio(plan: Plan) -> float:
    """What the plan's dense layers and k_min alone take of the past, 0..1."""
    budget, num_layers = plan_budget(plan), plan.model.num_layers
    dense = len(plan.dense_layers)
    least = dense * budget.total + (num_layers - dense) * budget.kept(0)
    return least / (num_layers * budget.total)


def reallocated(plan: Plan, weights: Ratios, dense_layers: Sequence[int]) -> Plan:
    """The plan with keep ratios in proportion to `weights` instead, in `dense_layers` 1, at the
    budget the plan was made for. Raises `ConfigError` where k_min and dense layers take more."""
    shares = _shared(weights.astype(np.float64), plan)
    ratios = scale_to_budget(shares, plan.provenance.ratio, dense_layers, plan_budget(plan))
    return with_ratios(plan, ratios, dense_layers)


def uniform(plan: Plan, dense_layers: Sequence[int]) -> Plan:
    """The plan with one keep ratio for every head that isn't dense, at the plan's budget."""
    return reallocated(plan, np.ones_like(plan_ratios(plan)), dense_layers)


def at_ratio(context: SweepContext, ratio: float) -> Plan:
    """The base plan at another budget, allocated by the base plan's method."""
    plan = context.plan
    return recalibrated(context, ratio=ratio, method=_method_of(plan))


def with_buckets(context: SweepContext, buckets: BucketGrid) -> Plan:
    """The base plan on another grid of scales: the same scales and ratios."""
    if context.plan.pilot.score_bits == 32:  # nothing else depends on the grid
        return Plan.model_validate({**dict(context.plan), "buckets": buckets})
    return recalibrated(context, buckets=buckets, method=_same_ratios(context.plan))


def with_pilot(context: SweepContext, pilot: Pilot) -> Plan:
    """The base plan with another estimate: the same ratios, scales of its own."""
    return recalibrated(context, pilot=pilot, method=_same_ratios(context.plan))


def with_sharing(context: SweepContext, sharing: Sharing) -> Plan:
    """The base plan with other lists, allocated for them by the base plan's method."""
    pilot = context.plan.pilot
    if sharing.pooled and pilot.score_bits == 32:
        pilot = pilot.model_copy(update={"score_bits": 9})
    return recalibrated(context, sharing=sharing, pilot=pilot, method=_method_of(context.plan))


def with_voters(
    context: SweepContext, sharing: Sharing, fraction: float, choose_strides: StrideChoice
) -> Plan:
    """`with_sharing`, where `fraction` of the queries vote on lists."""
    return recalibrated(
        context,
        sharing=sharing,
        method=_method_of(context.plan),
        voting_fraction=fraction,
        choose_strides=choose_strides,
    )


def with_rest(context: SweepContext, rest: Rest) -> Plan:
    """The base plan with keys on no list counted in another way, allocated for that."""
    return recalibrated(context, rest=rest, method=_method_of(context.plan))


def recalibrated(
    context: SweepContext,
    *,
    method: Method,
    ratio: float | None = None,
    buckets: BucketGrid | None = None,
    pilot: Pilot | None = None,
    sharing: Sharing | None = None,
    rest: Rest | None = None,
    voting_fraction: float = 1.0,
    choose_strides: StrideChoice | None = None,
) -> Plan:
    """The base plan calibrated again with one setting changed. Who votes on its lists stays, unless
    these are others. Measurements that don't depend on the ratio are kept in
    `context.calibration_folder`.

    Raises like `calibrate`.
    """
    plan = context.plan
    settings = CalibrationSettings(
        ratio=plan.provenance.ratio if ratio is None else ratio,
        k_min=plan.k_min,
        dense_layers=plan.dense_layers,
        buckets=buckets or plan.buckets,
        pilot=pilot or plan.pilot,
        sharing=sharing or plan.sharing,
        rest=rest or plan.rest,
        num_windows=context.calibration_windows,
        window_tokens=plan.provenance.window_tokens,
        prefill_chunk_tokens=plan.provenance.prefill_chunk_tokens,
        voting_fraction=voting_fraction,
    )
    if choose_strides is None and settings.sharing == plan.sharing:
        choose_strides = _same_strides(plan)
    measured = digest_of(
        settings.buckets,
        settings.pilot,
        settings.sharing,
        settings.rest,
        settings.measured_strides,
    )[:16]
    folder = context.calibration_folder
    return calibrate(
        context.directory,
        context.calibration,
        plan.provenance.method,
        method,
        settings,
        choose_strides=choose_strides,
        partial_path=None if folder is None else folder / f"calibration-{measured}.npz",
        progress=lambda stage, done, total: context.progress(f"calibrate: {stage}", done, total),
    )


def _method_of(plan: Plan) -> Method:
    """How the base plan's ratios were chosen, where that can be done again here; other allocations
    are scaled."""
    named: dict[str, Method] = {"fisher": fisher_ratios, "uniform": uniform_ratios}
    return named.get(plan.provenance.method, _same_ratios(plan))


def _same_ratios(plan: Plan) -> Method:
    """The base plan's ratios, scaled where the budget is another."""

    def method(context: MethodContext) -> Ratios:
        if context.settings.ratio == plan.provenance.ratio:
            return plan_ratios(plan)
        weights = plan_ratios(plan).astype(np.float64)
        settings = context.settings
        return scale_to_budget(weights, settings.ratio, settings.dense_layers, context.budget)

    return method


def _same_strides(plan: Plan) -> StrideChoice:
    """The base plan's, but of heads that now run dense."""
    own = np.array([[head.query_stride for head in layer.heads] for layer in plan.layers], np.int64)

    def choose(_context: MethodContext, ratios: Ratios) -> Strides:
        return np.where(ratios < RATIO_ONE, own, 1)

    return choose


def _shared(weights: Doubles, plan: Plan) -> Doubles:
    """Weights made equal within each KV group where its heads share their lists."""
    if not plan.sharing.gqa_group:
        return weights
    groups = weights.reshape(len(weights), plan.model.num_kv_heads, -1)
    return np.broadcast_to(groups.mean(axis=2, keepdims=True), groups.shape).reshape(weights.shape)
