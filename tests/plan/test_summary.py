"""The figures `plan show` prints."""

from __future__ import annotations

import pytest

from shadowattn_tvm.plan import Pilot, Plan, RatioProfile, Sharing, plan_hash
from shadowattn_tvm.plan.ratios import RatioSource, mean_ratio
from shadowattn_tvm.plan.summary import (
    Budget,
    PlanSummary,
    ProfileSummary,
    Range,
    describe_buckets,
    describe_costs,
    describe_order,
    describe_pilot,
    describe_rest,
    describe_sharing,
    summarize_plan,
    summarize_profile,
)
from tests.plan.tiny_plan import cost_model, shared_lists, stage_costs

BUDGET = Budget(window_tokens=256, prefill_chunk_tokens=16, past_fraction=0.5, total_fraction=0.55)


def test_a_plan_in_figures(tiny_plan: Plan) -> None:
    summary = summarize_plan(tiny_plan, BUDGET)
    assert summary.plan_hash == plan_hash(tiny_plan)
    assert summary.dense_layers == (0,)
    assert [layer.dense for layer in summary.layers] == [True, False, False]
    assert [layer.keep_ratio.mean for layer in summary.layers] == [1.0, 0.25, 0.25]
    scales = [head.q_scale for head in tiny_plan.layers[1].heads]
    assert summary.layers[1].q_scale == Range(
        min=min(scales), mean=sum(scales) / len(scales), max=max(scales)
    )
    assert PlanSummary.model_validate_json(summary.model_dump_json()) == summary


def test_a_profile_in_figures() -> None:
    rows = ((1.0, 1.0), (1.0, 0.25))
    profile = RatioProfile(
        ratio=mean_ratio(rows),
        source=RatioSource(name="p.txt", sha256="0" * 64),
        keep_ratios=rows,
    )
    summary = summarize_profile(profile)
    assert (summary.num_layers, summary.num_q_heads, summary.dense_heads) == (2, 2, 3)
    assert [layer.dense for layer in summary.layers] == [True, False]
    assert summary.layers[1].keep_ratio == Range(min=0.25, mean=0.625, max=1.0)
    assert summary.layers[1].q_scale is None
    assert ProfileSummary.model_validate_json(summary.model_dump_json()) == summary


@pytest.mark.parametrize("values", [[0.1] * 3, [0.7] * 9, [1.0], [0.2, 0.4]])
def test_a_mean_lies_in_its_range(values: list[float]) -> None:
    got = Range.of(values)
    assert got.min <= got.mean <= got.max
    assert got.mean == pytest.approx(sum(values) / len(values))


def test_sharing_in_words(tiny_plan: Plan) -> None:
    def words(sharing: Sharing) -> str:
        return describe_sharing(tiny_plan.model_copy(update={"sharing": sharing}))

    assert words(Sharing()) == "a list per query head and query"
    assert words(Sharing(query_block=32)) == "a list per query head and block of 32 queries"
    assert "KV head's group" in words(Sharing(gqa_group=True))
    heads = tuple(head.model_copy(update={"query_stride": 2}) for head in tiny_plan.layers[1].heads)
    dense, _, last = tiny_plan.layers
    sparse = last.model_copy(update={"heads": heads})
    sampled = tiny_plan.model_copy(
        update={"layers": (dense, sparse, last), "sharing": Sharing(query_block=32)}
    )
    assert describe_sharing(sampled).endswith("block of 32 queries, 75% of which vote on it")


def test_the_rest_in_words(tiny_plan: Plan) -> None:
    assert describe_rest(tiny_plan) == "dropped"
    counted = tiny_plan.model_copy(update={"rest": "mean"})
    assert describe_rest(counted) == "counted by the mean of a sample of the past"


def test_pilot_and_buckets_in_words(tiny_plan: Plan) -> None:
    assert describe_pilot(tiny_plan) == "INT8 queries and keys, INT32 scores"
    pilot = Pilot(bits=4, center_keys=True, hadamard_rotation=True, score_bits=8)
    assert describe_pilot(tiny_plan.model_copy(update={"pilot": pilot})) == (
        "INT4 queries and keys, INT8 scores, centred keys, Hadamard rotation"
    )
    assert describe_buckets(tiny_plan) == "3 x 3 scale pairs a head, step 0.5"
    single = tiny_plan.buckets.model_copy(update={"per_axis": 1})
    assert describe_buckets(tiny_plan.model_copy(update={"buckets": single})) == (
        "one scale pair a head"
    )


def test_order_and_costs_in_words(tiny_plan: Plan) -> None:
    assert describe_order(tiny_plan).startswith("none: without shared lists")
    plan = shared_lists(tiny_plan, Sharing(gqa_group=True, query_block=8))
    assert describe_order(plan) == "who keeps most first"
    plan = plan.model_copy(update={"head_order": ((1, 0),) * 3})
    assert describe_order(plan) == "of groups, planned"
    costs = stage_costs(cost_model())
    plan = plan.model_copy(update={"stage_costs": costs})
    assert describe_order(plan) == "of groups, planned for 1,000 older tokens"
    assert describe_costs(None) == "not measured"
    words = describe_costs(costs)
    for part in (
        "pilot 1000.0 us for a head's 8 queries and 1,000 keys, 200.0 of it for any",
        "selection 1.0 us a list and 2.00 ns a key",
        "attention 50.00 ns a query and kept key",
        "1.0% (pilot) and 2.0% (the others)",
        "Abacus, 2 cores, contexts of 512, 1,000, chunks of 16, medians of 3",
    ):
        assert part in words
    summary = summarize_plan(plan, BUDGET)
    assert (summary.head_order, summary.stage_costs) == (plan.head_order, costs)
    assert PlanSummary.model_validate_json(summary.model_dump_json()) == summary
