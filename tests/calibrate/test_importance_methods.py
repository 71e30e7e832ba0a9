"""`paper`, `ae` and given ratios as methods of `calibrate`, on a tiny model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shadowattn_tvm.calibrate import CalibrationSettings, calibrate
from shadowattn_tvm.calibrate.ablation import measure_ablation
from shadowattn_tvm.calibrate.ablation_document import Ablation, LayerAblation, Loss
from shadowattn_tvm.calibrate.ae import ae_ratios
from shadowattn_tvm.calibrate.build_plan import Method, MethodName
from shadowattn_tvm.calibrate.importance_methods import (
    AblationSource,
    ae_method,
    group_means,
    paper_method,
)
from shadowattn_tvm.calibrate.paper import paper_importance
from shadowattn_tvm.calibrate.ratios import given_ratios
from shadowattn_tvm.corpora import Document
from shadowattn_tvm.errors import PlanError
from shadowattn_tvm.plan import Pilot, Plan, RatioProfile, Sharing
from shadowattn_tvm.plan.ratios import RatioSource, mean_ratio, plan_keep_ratios
from shadowattn_tvm.runtime.pairs import PairCounter, PairCounts
from shadowattn_tvm.weights import ModelDirectory

DOCUMENTS = (Document("fox", "The quick brown fox jumps over the lazy dog. " * 12),)
SETTINGS = CalibrationSettings(ratio=0.4, k_min=4, num_windows=1, window_tokens=128)

TIED_HEADS_STEP = 5e-3
"""Heads of equal weight take the next key together, and the tiny model's pasts are short."""


@pytest.fixture(scope="module")
def source(
    tiny_directory: ModelDirectory, tmp_path_factory: pytest.TempPathFactory
) -> AblationSource:
    """A stored measurement in which heads and layers matter: random weights only do harm."""
    store = tmp_path_factory.mktemp("ablation") / "measured.json"
    source = AblationSource(DOCUMENTS, num_windows=4, window_tokens=32, store=store)
    inputs = _measured(tiny_directory, source).inputs
    draw = np.random.default_rng(3)
    layers = tuple(
        LayerAblation(
            bypassed=Loss.of(4.0 + layer),
            heads=tuple(Loss.of(3.0 + float(x)) for x in draw.uniform(0.01, 0.3, 6)),
        )
        for layer in range(inputs.num_layers)
    )
    made_up = Ablation(inputs=inputs, baseline=Loss.of(3.0), layers=layers)
    store.write_text(made_up.model_dump_json())
    return source


def make_plan(directory: ModelDirectory, name: MethodName, method: Method, **changes: Any) -> Plan:
    return calibrate(directory, DOCUMENTS, name, method, replace(SETTINGS, **changes))


def past_fraction(plan: Plan) -> float:
    """Counted as the runtime does."""
    ratios = [[round(ratio * 65536) for ratio in row] for row in plan_keep_ratios(plan)]
    counter = PairCounter(ratios, plan.k_min)
    pairs = PairCounts()
    step = plan.provenance.prefill_chunk_tokens
    for start in range(0, plan.provenance.window_tokens, step):
        pairs += counter.chunk(start, step)
    return pairs.past_fraction


@pytest.mark.parametrize("dense_layers", [(), (1,)])
@pytest.mark.parametrize("make", [paper_method, ae_method])
def test_the_budget_is_met_with_k_min_and_dense_layers(
    make: Any, dense_layers: tuple[int, ...], tiny_directory: ModelDirectory, source: AblationSource
) -> None:
    plan = make_plan(tiny_directory, "paper", make(source), dense_layers=dense_layers)
    assert plan.dense_layers == dense_layers
    assert past_fraction(plan) == pytest.approx(0.4, abs=TIED_HEADS_STEP)
    assert past_fraction(plan) <= 0.4


def test_paper_keeps_in_proportion_to_importance(
    tiny_directory: ModelDirectory, source: AblationSource
) -> None:
    plan = make_plan(tiny_directory, "paper", paper_method(source), ratio=0.7)
    assert plan.provenance.method == "paper"
    kept = np.array(plan_keep_ratios(plan))
    importance = np.array(paper_importance(_measured(tiny_directory, source)))
    cut, below = kept == 1, kept < 1
    factors = kept[below] / importance[below]
    np.testing.assert_allclose(factors, factors[0], rtol=1e-3)
    assert importance[cut].min() >= importance[below].max()


def test_ae_scales_its_own_ratios(tiny_directory: ModelDirectory, source: AblationSource) -> None:
    plan = make_plan(tiny_directory, "ae", ae_method(source))
    assert plan.provenance.method == "ae"
    kept = np.array(plan_keep_ratios(plan))
    own = np.array(ae_ratios(_measured(tiny_directory, source), 0.4))
    np.testing.assert_allclose(kept / own, kept[0, 0] / own[0, 0], rtol=1e-3)


@pytest.mark.parametrize("make", [paper_method, ae_method])
def test_shared_lists_get_one_ratio_a_group(
    make: Any, tiny_directory: ModelDirectory, source: AblationSource
) -> None:
    plan = make_plan(
        tiny_directory,
        "paper",
        make(source),
        sharing=Sharing(gqa_group=True),
        pilot=Pilot(score_bits=8),
    )
    assert past_fraction(plan) == pytest.approx(0.4, abs=TIED_HEADS_STEP)
    for row in plan_keep_ratios(plan):
        assert row == (row[0],) * 3 + (row[3],) * 3


def test_group_means_by_hand() -> None:
    got = group_means(np.array([[1.0, 3.0, 0.0, 0.5]]), 2)
    np.testing.assert_array_equal(got, [[2.0, 2.0, 0.25, 0.25]])


def _measured(directory: ModelDirectory, source: AblationSource) -> Ablation:
    return measure_ablation(
        directory,
        source.documents,
        num_windows=source.num_windows,
        window_tokens=source.window_tokens,
        store=source.store,
    )


def make_profile(rows: tuple[tuple[float, ...], ...]) -> RatioProfile:
    return RatioProfile(
        ratio=mean_ratio(rows),
        source=RatioSource(name="p.txt", sha256="0" * 64),
        keep_ratios=rows,
    )


GIVEN = ((1.0,) * 6, (0.1, 0.2, 0.3, 0.4, 0.5, 0.6), (0.123456789,) * 5 + (0.0,))


def test_given_ratios_are_kept_as_they_are(tiny_directory: ModelDirectory) -> None:
    profile = make_profile(GIVEN)
    plan = make_plan(
        tiny_directory,
        "ratios",
        given_ratios(profile),
        ratio=profile.ratio,
        dense_layers=profile.dense_layers,
    )
    assert plan.dense_layers == (0,)
    np.testing.assert_allclose(plan_keep_ratios(plan), GIVEN, atol=0.5 / 65536)


def test_given_ratios_are_averaged_where_lists_are_shared(tiny_directory: ModelDirectory) -> None:
    plan = make_plan(
        tiny_directory,
        "ratios",
        given_ratios(make_profile(GIVEN)),
        sharing=Sharing(gqa_group=True),
        pilot=Pilot(score_bits=8),
    )
    np.testing.assert_allclose(plan_keep_ratios(plan)[1], [0.2] * 3 + [0.5] * 3, atol=1 / 65536)


def test_ratios_of_another_model_are_refused(tiny_directory: ModelDirectory) -> None:
    with pytest.raises(PlanError, match="expected 3 layers of 6 query heads, got 2 of 6"):
        make_plan(tiny_directory, "ratios", given_ratios(make_profile(GIVEN[:2])))


def test_one_measurement_serves_both_methods(
    tiny_directory: ModelDirectory, tmp_path: Path
) -> None:
    source = AblationSource(DOCUMENTS, num_windows=2, window_tokens=16, store=tmp_path / "a.json")
    stages: list[str] = []

    def note(stage: str, done: int, total: int) -> None:
        stages.append(stage)

    calibrate(tiny_directory, DOCUMENTS, "paper", paper_method(source), SETTINGS, progress=note)
    assert "ablation" in stages
    stages.clear()
    calibrate(tiny_directory, DOCUMENTS, "ae", ae_method(source), SETTINGS, progress=note)
    assert "ablation" not in stages
