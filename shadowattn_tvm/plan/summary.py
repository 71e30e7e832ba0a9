"""A plan or a ratio profile in a few figures, for people and for JSON."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

from tir_kernels.spec import Rest

from .document import Decode, Fraction, Plan, PlannedModel, PositiveInt, Provenance
from .head_order import HeadOrder
from .ratios import RatioProfile, RatioSource, plan_keep_ratios
from .stage_costs import StageCosts
from .store import plan_hash


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Range(_Document):
    """Smallest, mean and largest of some numbers."""

    min: float
    mean: float
    max: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Range:
        """Of at least one number."""
        low, high = min(values), max(values)
        # The mean of equal numbers may differ from them in the last bit.
        return cls(min=low, mean=min(max(sum(values) / len(values), low), high), max=high)


class LayerSummary(_Document):
    """One layer. `keep_ratio` counts as run: 1 in a dense layer. Scales are those of the query
    heads, absent from a ratio profile."""

    layer: int
    dense: bool
    keep_ratio: Range
    q_scale: Range | None = None
    k_scale: Range | None = None


class Budget(_Document):
    """What a plan computes exactly over windows prefilled in chunks, counted in pairs of a query
    and a key over all layers and heads, k_min and dense layers included.

    Attributes
    ----------
    past_fraction : of the pairs with a key older than the query's chunk.
    total_fraction : of all causal pairs.
    """

    window_tokens: PositiveInt
    prefill_chunk_tokens: PositiveInt
    past_fraction: Fraction
    total_fraction: Fraction


class PlanSummary(_Document):
    """What `shadowattn plan show --json` writes for a plan."""

    plan_hash: str
    model: PlannedModel
    budget: Budget
    k_min: PositiveInt
    dense_layers: tuple[int, ...]
    sharing: str
    pilot: str
    buckets: str
    voting_fraction: Fraction
    rest: Rest
    decode: Decode
    head_order: HeadOrder | None
    stage_costs: StageCosts | None
    layers: tuple[LayerSummary, ...]
    provenance: Provenance


class ProfileSummary(_Document):
    """What `shadowattn plan show --json` writes for a ratio profile."""

    num_layers: PositiveInt
    num_q_heads: PositiveInt
    ratio: Fraction
    dense_heads: Annotated[int, Field(ge=0)]
    layers: tuple[LayerSummary, ...]
    source: RatioSource


def summarize_plan(plan: Plan, budget: Budget) -> PlanSummary:
    """The figures of a plan; its pairs are counted by whoever knows the kernels."""
    return PlanSummary(
        plan_hash=plan_hash(plan),
        model=plan.model,
        budget=budget,
        k_min=plan.k_min,
        dense_layers=plan.dense_layers,
        sharing=describe_sharing(plan),
        pilot=describe_pilot(plan),
        buckets=describe_buckets(plan),
        voting_fraction=plan.voting_fraction,
        rest=plan.rest,
        decode=plan.decode,
        head_order=plan.head_order,
        stage_costs=plan.stage_costs,
        layers=tuple(
            LayerSummary(
                layer=index,
                dense=layer.dense,
                keep_ratio=Range.of(ratios),
                q_scale=Range.of([head.q_scale for head in layer.heads]),
                k_scale=Range.of([head.k_scale for head in layer.heads]),
            )
            for index, (layer, ratios) in enumerate(
                zip(plan.layers, plan_keep_ratios(plan), strict=True)
            )
        ),
        provenance=plan.provenance,
    )


def summarize_profile(profile: RatioProfile) -> ProfileSummary:
    """The figures of a ratio profile; a layer counts as dense where every head keeps everything."""
    return ProfileSummary(
        num_layers=profile.num_layers,
        num_q_heads=profile.num_q_heads,
        ratio=profile.ratio,
        dense_heads=sum(ratio == 1.0 for row in profile.keep_ratios for ratio in row),
        layers=tuple(
            LayerSummary(layer=index, dense=index in profile.dense_layers, keep_ratio=Range.of(row))
            for index, row in enumerate(profile.keep_ratios)
        ),
        source=profile.source,
    )


def describe_rest(plan: Plan) -> str:
    """What prefill does about keys on no list, in words."""
    if plan.rest == "dropped":
        return "dropped"
    return "counted by the mean of a sample of the past"


def describe_decode(plan: Plan) -> str:
    """How one new token attends, in words."""
    if plan.decode == "dense":
        return "dense"
    return "sparse, over an INT8 shadow of K in the KV cache; a list per query head"


def describe_sharing(plan: Plan) -> str:
    """Who shares a list, in words."""
    heads = "KV head's group of query heads" if plan.sharing.gqa_group else "query head"
    block = plan.sharing.query_block
    if block == 1:
        return f"a list per {heads} and query"
    share = plan.voting_fraction
    voters = "" if share == 1.0 else f", {share:.0%} of which vote on it"
    return f"a list per {heads} and block of {block} queries{voters}"


def describe_pilot(plan: Plan) -> str:
    """How the estimate is computed, in words."""
    pilot = plan.pilot
    parts = [f"INT{pilot.bits} queries and keys", f"INT{pilot.score_bits} scores"]
    parts += ["centred keys"] if pilot.center_keys else []
    parts += ["Hadamard rotation"] if pilot.hadamard_rotation else []
    return ", ".join(parts)


def describe_buckets(plan: Plan) -> str:
    """The scales on offer, in words."""
    side = plan.buckets.per_axis
    if side == 1:
        return "one scale pair a head"
    return f"{side} x {side} scale pairs a head, step {plan.buckets.sigma:g}"


def describe_order(plan: Plan) -> str:
    """Who takes turns in which order, in words."""
    if not plan.sharing.pooled:
        return "none: without shared lists there is no pipeline"
    if plan.head_order is None:
        return "who keeps most first"
    units = "groups" if plan.sharing.gqa_group else "heads"
    return f"of {units}, planned" + (
        f" for {plan.stage_costs.planned_context:,} older tokens" if plan.stage_costs else ""
    )


def describe_costs(costs: StageCosts | None) -> str:
    """What the stages cost and where that was measured, in words."""
    if costs is None:
        return "not measured"
    pilot, select, attend = costs.model.pilot, costs.model.select, costs.model.attend
    contexts = ", ".join(f"{context:,}" for context in costs.contexts)
    return "; ".join(
        [
            f"pilot {1e3 * pilot.launches[0].ms:.1f} us for a head's {pilot.queries} queries and "
            f"{pilot.keys:,} keys, {1e3 * pilot.fixed_ms:.1f} of it for any",
            f"selection {1e-3 * select.ns_per_list:.1f} us a list and "
            f"{select.ns_per_list_and_key:.2f} ns a key",
            f"attention {attend.ns_per_query_and_kept_key:.2f} ns a query and kept key",
            f"fitted with a median error of {costs.pilot_error:.1%} (pilot) and "
            f"{costs.attend_error:.1%} (the others)",
            f"measured {costs.created:%Y-%m-%d} on {costs.machine}, contexts of {contexts}, chunks "
            f"of {costs.chunk_tokens}, medians of {costs.rounds}",
        ]
    )
