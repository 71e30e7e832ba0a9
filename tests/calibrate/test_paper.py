"""Equation 3 worked by hand, and what must hold of any allocation."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shadowattn_tvm.calibrate.ablation_document import (
    Ablation,
    AblationInputs,
    LayerAblation,
    Loss,
)
from shadowattn_tvm.calibrate.paper import paper_importance, paper_ratios, share_budget
from shadowattn_tvm.errors import ConfigError

importances = st.lists(st.floats(1e-6, 1.0), min_size=1, max_size=60)


def measured(baseline: float, bypassed: list[float], heads: list[list[float]]) -> Ablation:
    """An ablation with these mean losses."""
    return Ablation(
        inputs=AblationInputs(
            model_fingerprint="m",
            weight_hash="w",
            num_layers=len(heads),
            num_q_heads=len(heads[0]),
            num_windows=1,
            window_tokens=2,
            documents_sha256=(),
            windows_sha256="0" * 64,
        ),
        baseline=Loss.of(baseline),
        layers=tuple(
            LayerAblation(bypassed=Loss.of(layer), heads=tuple(map(Loss.of, row)))
            for layer, row in zip(bypassed, heads, strict=True)
        ),
    )


def test_equation_3_by_hand() -> None:
    # Baseline 3.0. Layer importances 0.5 and 0.25; head importances (0.1, 0.2) and (0.4, 0.8).
    # Products 0.05, 0.10 | 0.10, 0.20; their sum 0.45. Budget 0.3 * 4 = 1.2.
    # Ratios 1.2 / 9 * (1, 2 | 2, 4) = 0.1333, 0.2667 | 0.2667, 0.5333.
    ablation = measured(3.0, [3.5, 3.25], [[3.1, 3.2], [3.4, 3.8]])
    assert paper_ratios(ablation, 0.3) == (
        pytest.approx((2 / 15, 4 / 15)),
        pytest.approx((4 / 15, 8 / 15)),
    )


def test_what_exceeds_one_goes_to_the_others_in_proportion() -> None:
    # The same products at ratio 0.75: budget 3.0, ratios 1/3, 2/3, 2/3, 4/3. The last is cut;
    # 2.0 remain for products 1 : 2 : 2, that is 0.4, 0.8, 0.8.
    ablation = measured(3.0, [3.5, 3.25], [[3.1, 3.2], [3.4, 3.8]])
    assert paper_ratios(ablation, 0.75) == (pytest.approx((0.4, 0.8)), pytest.approx((0.8, 1.0)))


def test_a_cut_may_make_others_exceed_one() -> None:
    # 10 : 3 : 1 of 2.4: 1.71, 0.51, 0.17. Then 3 : 1 of 1.4: 1.05, 0.35. Then all of 0.4.
    assert share_budget([10.0, 3.0, 1.0], 0.8) == pytest.approx([1.0, 1.0, 0.4])


def test_clamping_by_hand() -> None:
    # Head importances 2.0, 0.0004, -0.5 and layer importance 1.0: 2 -> 1, 4e-4 stays, -0.5 -> 1e-6.
    ablation = measured(3.0, [4.0], [[5.0, 3.0004, 2.5]])
    assert paper_importance(ablation) == (pytest.approx((1.0, 4e-4, 1e-6)),)


def test_two_negative_importances_do_not_make_a_positive_one() -> None:
    ablation = measured(3.0, [2.0], [[2.0, 4.0]])
    assert paper_importance(ablation) == ((1e-6, 1e-6),)


def test_other_bounds_can_be_had() -> None:
    ablation = measured(3.0, [4.0], [[5.0, 3.0, 3.5]])
    got = paper_importance(ablation, smallest=0.1, largest=1.5)
    assert got == (pytest.approx((1.5, 0.1, 0.5)),)


@given(importances, st.floats(0.0, 1.0))
def test_the_budget_is_spent_in_proportion(importance: list[float], ratio: float) -> None:
    ratios = share_budget(importance, ratio)
    assert all(0.0 <= r <= 1.0 for r in ratios)
    assert math.fsum(ratios) == pytest.approx(ratio * len(importance), abs=1e-9)
    below = [(x, r) for x, r in zip(importance, ratios, strict=True) if r < 1.0]
    for x, r in below:
        assert r * below[0][0] == pytest.approx(below[0][1] * x, abs=1e-9)
    if below and len(below) < len(ratios):  # whoever is cut is at least as important
        full = min(x for x, r in zip(importance, ratios, strict=True) if r == 1.0)
        assert full >= max(x for x, _ in below)


@pytest.mark.parametrize("ratio", [-0.1, 1.1, float("nan")])
def test_ratios_that_cannot_be_are_refused(ratio: float) -> None:
    with pytest.raises(ConfigError, match="between 0 and 1"):
        share_budget([1.0], ratio)
