"""Variants differ in one thing and keep the budget."""

from __future__ import annotations

import numpy as np
import pytest

from shadowattn_tvm.calibrate import past_fraction
from shadowattn_tvm.errors import ConfigError
from shadowattn_tvm.evaluate.sweep_variants import (
    plan_budget,
    plan_ratios,
    reallocated,
    smallest_ratio,
    uniform,
)
from shadowattn_tvm.plan import Plan, Sharing
from tir_kernels.constants import RATIO_ONE


@pytest.fixture(scope="module")
def plan(tiny_plan: Plan) -> Plan:
    """The tiny plan with a budget that leaves room above `k_min`."""
    source = tiny_plan.provenance.model_copy(
        update={"ratio": 0.6, "window_tokens": 256, "prefill_chunk_tokens": 16}
    )
    return tiny_plan.model_copy(update={"provenance": source, "k_min": 4})


def _fraction(plan: Plan) -> float:
    return past_fraction(plan_ratios(plan), plan_budget(plan))


def test_ratios_are_read_as_the_kernels_see_them(plan: Plan) -> None:
    ratios = plan_ratios(plan)
    assert (ratios[list(plan.dense_layers)] == RATIO_ONE).all()
    sparse = [i for i in range(len(plan.layers)) if i not in plan.dense_layers]
    expected = [[head.keep_ratio for head in plan.layers[i].heads] for i in sparse]
    np.testing.assert_allclose(ratios[sparse] / RATIO_ONE, expected, atol=1e-5)


@pytest.mark.parametrize("dense_layers", [(), (0,)])
def test_a_uniform_plan_spends_the_same_budget(plan: Plan, dense_layers: tuple[int, ...]) -> None:
    variant = uniform(plan, dense_layers)
    assert variant.dense_layers == dense_layers
    sparse = [row for i, row in enumerate(plan_ratios(variant)) if i not in dense_layers]
    assert len(np.unique(sparse)) == 1
    assert 0.6 - 0.01 < _fraction(variant) <= 0.6
    for got, expected in zip(variant.layers, plan.layers, strict=True):
        assert [head.q_scale for head in got.heads] == [head.q_scale for head in expected.heads]


def test_other_ratios_keep_their_proportions(plan: Plan) -> None:
    rng = np.random.default_rng(0)
    weights = rng.integers(1000, 3000, plan_ratios(plan).shape)
    variant = reallocated(plan, weights, ())
    got = plan_ratios(variant).astype(float)
    below = got < RATIO_ONE
    proportion = got[below] / weights[below]
    np.testing.assert_allclose(proportion, proportion.mean(), rtol=1e-3)
    assert 0.6 - 0.01 < _fraction(variant) <= 0.6


def test_heads_that_share_lists_get_one_ratio(plan: Plan) -> None:
    pilot = plan.pilot.model_copy(update={"score_bits": 8})
    side = plan.buckets.per_axis
    layers = tuple(
        layer.model_copy(
            update={
                "heads": tuple(
                    head.model_copy(update={"requant": ((0.001,) * side,) * side})
                    for head in layer.heads
                )
            }
        )
        for layer in plan.layers
    )
    shared = Plan.model_validate(
        {**dict(plan), "layers": layers, "pilot": pilot, "sharing": Sharing(gqa_group=True)}
    )
    weights = np.random.default_rng(0).integers(1000, 3000, plan_ratios(plan).shape)
    groups = plan_ratios(reallocated(shared, weights, ())).reshape(
        len(layers), plan.model.num_kv_heads, -1
    )
    assert (groups == groups[:, :, :1]).all()
    assert len(np.unique(groups)) > 1


def test_the_smallest_ratio_is_the_smallest_that_can_be_allocated(plan: Plan) -> None:
    least = smallest_ratio(plan)
    assert 0.0 < least < 1.0

    def at(ratio: float) -> Plan:
        source = plan.provenance.model_copy(update={"ratio": ratio})
        return uniform(plan.model_copy(update={"provenance": source}), plan.dense_layers)

    assert _fraction(at(least + 1e-6)) <= least + 1e-6
    with pytest.raises(ConfigError, match="raise the ratio"):
        at(least - 1e-3)
