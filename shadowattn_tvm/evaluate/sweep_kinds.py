"""What each kind of sweep compares: counterparts of the paper's Tables 4 and 6 and of its studies
of the ratio, the number of scale buckets and their step, and of what we added."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from tir_kernels.spec import Rest, ShadowSpec, query_strides

from ..calibrate import UNIFORM_DENSE_LAYERS, chosen_by_cost, the_same
from ..compiler.kernel_parameters import attention_spec, shadow_spec
from ..config.chat_config import model_dtype
from ..errors import ConfigError
from ..plan import BucketGrid, Pilot, Plan, Sharing
from .baselines import BlockSparse, NpuFull, SparseFloat
from .sweep_cache import digest_of
from .sweep_context import SweepContext
from .sweep_document import Kind
from .sweep_labels import (
    SHARINGS,
    bucket_label,
    pilot_label,
    sharing_label,
    voters_label,
)
from .sweep_npu_scales import npu_scales
from .sweep_points import SweepPoint, dense_point, implementation_point, plan_point
from .sweep_variants import (
    at_ratio,
    plan_ratios,
    reallocated,
    smallest_ratio,
    uniform,
    with_buckets,
    with_pilot,
    with_rest,
    with_sharing,
    with_voters,
)

RATIOS = (0.05, 0.1, 0.2, 0.3, 0.5)
SIGMAS = (0.25, 0.35, 0.5, 0.7)
BUCKETS_PER_AXIS: tuple[Literal[1, 3, 5], ...] = (1, 3, 5)
VOTING_BLOCKS: tuple[Literal[16, 32], ...] = (16, 32)
PROBABILITY_BITS: tuple[Literal[8, 16], ...] = (8, 16)


@dataclass(frozen=True)
class Comparison:
    """The points of a sweep, the one that others are compared with, and what to know of them."""

    points: tuple[SweepPoint, ...]
    base: str
    notes: tuple[str, ...] = ()


def ratio_points(context: SweepContext) -> Comparison:
    """Accuracy by budget."""
    own, least = context.plan.provenance.ratio, smallest_ratio(context.plan)
    points = [
        _plan_point(context, f"{ratio:.0%}", at_ratio(context, ratio), ratio)
        for ratio in sorted({*RATIOS, own})
        if ratio >= least
    ]
    return Comparison(
        tuple(points),
        f"{own:.0%}",
        (
            _recalibrated_note(context),
            f"Dense layers and k_min take {least:.1%} of the past: budgets start there.",
        ),
    )


def bucket_points(context: SweepContext) -> Comparison:
    """Accuracy by the number of scale buckets."""
    sigma = context.plan.buckets.sigma
    points = [
        _plan_point(
            context,
            bucket_label(side),
            with_buckets(context, BucketGrid(sigma=sigma, per_axis=side)),
            side * side,
        )
        for side in BUCKETS_PER_AXIS
    ]
    return Comparison(tuple(points), bucket_label(context.plan.buckets.per_axis))


def sigma_points(context: SweepContext) -> Comparison:
    """Accuracy by the step between buckets."""
    side, own = context.plan.buckets.per_axis, context.plan.buckets.sigma
    points = [
        _plan_point(
            context,
            f"sigma {sigma}",
            with_buckets(context, BucketGrid(sigma=sigma, per_axis=side)),
            sigma,
        )
        for sigma in sorted({*SIGMAS, own})
    ]
    return Comparison(tuple(points), f"sigma {own}")


def method_points(context: SweepContext) -> Comparison:
    """Allocations of one budget: the plan's own, uniform ones, and those that were given."""
    plan, own = context.plan, context.plan.provenance.method
    points = [_plan_point(context, own, plan)]
    dense = {"uniform": (), "uniform, layer 0 dense": UNIFORM_DENSE_LAYERS}
    points += [
        _plan_point(context, label, uniform(plan, layers))
        for label, layers in dense.items()
        if label != own
    ]
    points += [
        _plan_point(context, label, reallocated(plan, plan_ratios(other), other.dense_layers))
        for label, other in context.others.items()
    ]
    return Comparison(
        tuple(points),
        own,
        ("All points have the base plan's scales, sharing and budget; only keep ratios differ.",),
    )


def sharing_points(context: SweepContext) -> Comparison:
    """Who shares a list, each allocated for its own sharing."""
    named = {sharing_label(context.plan.sharing): context.plan.sharing, **SHARINGS}
    points = [
        _plan_point(context, label, with_sharing(context, sharing))
        for label, sharing in named.items()
    ]
    return Comparison(
        tuple(points), sharing_label(context.plan.sharing), (_recalibrated_note(context),)
    )


def voter_points(context: SweepContext) -> Comparison:
    """How many of the queries of a list vote on it: as many in every head, and as many over all
    heads, where they cost least. Each is allocated for its own lists."""
    own = context.plan.sharing
    if own.query_block == 1:
        raise ConfigError(
            "--sweep voters: the plan's queries have lists of their own, on which no other votes; "
            "expected a plan made with --query-block"
        )
    points = []
    for block in sorted({*VOTING_BLOCKS, own.query_block}):
        sharing = Sharing(gqa_group=own.gqa_group, query_block=block)
        points.append(
            _plan_point(context, voters_label(block, 1.0), with_sharing(context, sharing))
        )
        for stride in query_strides(block)[1:]:
            chosen = with_voters(context, sharing, 1 / stride, chosen_by_cost)
            points.append(_plan_point(context, voters_label(block, 1 / stride), chosen))
            same = with_voters(context, sharing, 1 / stride, the_same(stride))
            points.append(_plan_point(context, voters_label(block, 1 / stride, same=True), same))
    return Comparison(
        tuple(points), voters_label(own.query_block, 1.0), (_recalibrated_note(context),)
    )


def rest_points(context: SweepContext) -> Comparison:
    """Keys on no list dropped, as in the paper, or counted by their mean; ratios for each."""
    rests: tuple[Rest, ...] = ("dropped", "mean")
    return Comparison(
        tuple(_plan_point(context, rest, with_rest(context, rest)) for rest in rests),
        context.plan.rest,
        (_recalibrated_note(context),),
    )


def pilot_points(context: SweepContext) -> Comparison:
    """How the estimate is computed, at the plan's ratios and sharing."""
    pooled = context.plan.sharing.pooled
    score_bits: tuple[Literal[8, 9, 32], ...] = (8, 9) if pooled else (32, 8)
    pilots = {
        pilot_label(pilot): pilot
        for pilot in (
            context.plan.pilot,
            *(Pilot(score_bits=bits) for bits in score_bits),
            Pilot(center_keys=True, hadamard_rotation=True, score_bits=score_bits[-1]),
            Pilot(bits=6, center_keys=True, hadamard_rotation=True, score_bits=score_bits[-1]),
            Pilot(bits=4, score_bits=score_bits[-1]),
            Pilot(bits=4, center_keys=True, hadamard_rotation=True, score_bits=score_bits[-1]),
        )
    }
    points = [
        _plan_point(context, label, with_pilot(context, pilot)) for label, pilot in pilots.items()
    ]
    return Comparison(
        tuple(points), pilot_label(context.plan.pilot), (_recalibrated_note(context),)
    )


def baseline_points(context: SweepContext) -> Comparison:
    """The paper's baselines at the plan's budget, each head's own."""
    spec = _spec(context)
    return Comparison(
        (
            _plan_point(context, "shadowAttn", context.plan),
            dense_point(spec, "C/G-Full"),
            implementation_point(
                "C/G-Sparse", digest_of("sparse float", spec), SparseFloat(spec), spec
            ),
            implementation_point(
                "C/G-Block-Sparse", digest_of("block sparse", spec), BlockSparse(spec), spec
            ),
            *_npu_points(context),
        ),
        "shadowAttn",
        (
            "C/G-Sparse selects for each query and head, whatever the plan's sharing.",
            _NPU_NOTE,
        ),
    )


def ablation_points(context: SweepContext) -> Comparison:
    """shadowAttn without its parts, and without all of them."""
    plan = context.plan
    flat = with_buckets(context, BucketGrid(sigma=plan.buckets.sigma, per_axis=1))
    without_rest = []
    if plan.rest == "mean":
        dropped = plan.model_copy(update={"rest": "dropped"})
        without_rest = [_plan_point(context, "without the rest", dropped)]
    return Comparison(
        (
            _plan_point(context, "shadowAttn", plan),
            _plan_point(context, "without buckets", flat),
            _plan_point(context, "without per-head ratios", uniform(plan, ())),
            *without_rest,
            *_npu_points(context),
        ),
        "shadowAttn",
        (
            "Without the pipeline the same numbers are computed in another order of time: it has "
            "no effect on accuracy and is not measured here.",
            "Without buckets there is one scale a head, its mean over the calibration text.",
            _NPU_NOTE,
        ),
    )


KINDS: Mapping[Kind, Callable[[SweepContext], Comparison]] = {
    "ratio": ratio_points,
    "buckets": bucket_points,
    "sigma": sigma_points,
    "method": method_points,
    "sharing": sharing_points,
    "voters": voter_points,
    "rest": rest_points,
    "pilot": pilot_points,
    "baselines": baseline_points,
    "ablation": ablation_points,
}
"""Each raises `ConfigError` and `PlanError` for a base plan or texts it can't vary."""

_NPU_NOTE = (
    "NPU-Full: static per-tensor INT8 queries, keys and values, probabilities in 8 or 16 bits; "
    "scores stay INT32, softmax and output are float, so it is generous to NPU-Full."
)


def _plan_point(
    context: SweepContext, label: str, plan: Plan, value: float | None = None
) -> SweepPoint:
    directory = context.directory
    dtype = model_dtype(directory.quantization)
    return plan_point(label, plan, directory.architecture, value, dtype)


def _spec(context: SweepContext) -> ShadowSpec:
    return shadow_spec(context.plan, context.directory.architecture)


def _npu_points(context: SweepContext) -> list[SweepPoint]:
    scales = npu_scales(context)
    geometry = attention_spec(context.directory.architecture)
    return [
        implementation_point(
            f"NPU-Full, {bits}-bit probabilities",
            digest_of("npu full", scales, bits),
            NpuFull(geometry, scales, bits),
            None,
        )
        for bits in PROBABILITY_BITS
    ]


def _recalibrated_note(context: SweepContext) -> str:
    return (
        f"Variants are calibrated again on {context.calibration_windows} windows; the point of the "
        "plan's own setting as well."
    )
