"""Whole sweeps on a tiny model: losses are those of the compiled libraries, window by window."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from shadowattn_tvm.compiler.kernel_parameters import shadow_spec
from shadowattn_tvm.corpora import Document, read_documents
from shadowattn_tvm.errors import ConfigError
from shadowattn_tvm.evaluate.baselines import Full, ShadowTwin
from shadowattn_tvm.evaluate.context import EvaluationContext
from shadowattn_tvm.evaluate.sweep import run_sweep
from shadowattn_tvm.evaluate.sweep_cache import SweepCache
from shadowattn_tvm.evaluate.sweep_context import SweepContext
from shadowattn_tvm.evaluate.sweep_document import Point, SweepDocument
from shadowattn_tvm.evaluate.sweep_kinds import KINDS
from shadowattn_tvm.evaluate.sweep_run import SweepRequest, require_kinds, run_sweeps
from shadowattn_tvm.plan import Sharing
from shadowattn_tvm.runtime.scoring import score_tokens
from tests.evaluate.conftest import SETTINGS
from tests.plan.tiny_plan import shared_lists
from tir_kernels.constants import RATIO_ONE


@pytest.fixture(scope="module")
def sweep_context(tiny_context: EvaluationContext, tmp_path_factory: pytest.TempPathFactory):  # type: ignore[no-untyped-def]
    folder = tmp_path_factory.mktemp("sweeps")
    letters = np.random.default_rng(9).integers(97, 122, 4000)
    return SweepContext(
        directory=tiny_context.directory,
        plan=tiny_context.plan,
        windows=tiny_context.windows,
        model=tiny_context.open_model(),
        calibration=(Document("calibration", "".join(map(chr, letters))),),
        calibration_windows=2,
        calibration_folder=folder,
        others={"again": tiny_context.plan},
        cache=SweepCache(folder / "losses.json"),
        progress=lambda what, done, total: None,
    )


@pytest.fixture(scope="module")
def baselines(sweep_context: SweepContext) -> SweepDocument:
    return run_sweep("baselines", sweep_context, command="shadowattn eval")


def _point(document: SweepDocument, label: str) -> Point:
    return next(point for point in document.points if point.label == label)


def test_losses_are_those_of_the_compiled_libraries(
    baselines: SweepDocument, tiny_context: EvaluationContext
) -> None:
    texts = [window.token_ids.tolist() for window in tiny_context.windows]
    dense = [score_tokens(tiny_context.dense, ids).mean_nll for ids in texts]
    shadow = [score_tokens(tiny_context.shadow, ids).mean_nll for ids in texts]
    assert [window.nll_dense for window in baselines.windows] == dense
    assert list(_point(baselines, "C/G-Full").nll) == dense
    assert list(_point(baselines, "shadowAttn").nll) == shadow
    assert shadow != dense


def test_differences_are_of_mean_losses(baselines: SweepDocument) -> None:
    shadow = _point(baselines, "shadowAttn")
    dense = np.array([window.nll_dense for window in baselines.windows])
    percent = 100 * (np.exp(np.mean(shadow.nll - dense)) - 1)
    assert shadow.against_dense.percent == pytest.approx(percent)
    low, high = shadow.against_dense.ci95_percent
    assert low < percent < high
    assert shadow.against_base.percent == 0.0
    assert shadow.past_fraction is not None
    assert shadow.past_fraction < 0.8
    assert _point(baselines, "C/G-Full").past_fraction == 1.0
    assert _point(baselines, "C/G-Sparse").past_fraction == shadow.past_fraction


def test_fewer_bits_are_another_loss(baselines: SweepDocument) -> None:
    losses = {point.label: point.nll for point in baselines.points}
    assert len(set(losses.values())) == len(losses) == 6


def test_an_interrupted_sweep_goes_on_where_it_was(
    sweep_context: SweepContext, baselines: SweepDocument
) -> None:
    class Untouchable:
        session = sweep_context.model.session

        def __getattr__(self, name: str) -> None:
            raise AssertionError(f"measured again: {name}")

    again = replace(sweep_context, model=Untouchable())  # type: ignore[arg-type]
    document = run_sweep("baselines", again, command="shadowattn eval")
    assert document.model_dump(exclude={"created"}) == baselines.model_dump(exclude={"created"})


def test_allocations_are_compared_at_one_budget(sweep_context: SweepContext) -> None:
    document = run_sweep("method", sweep_context, command="shadowattn eval")
    assert [point.label for point in document.points] == [
        sweep_context.plan.provenance.method,
        "uniform, layer 0 dense",
        "again",
    ]
    assert document.base == sweep_context.plan.provenance.method


def test_voters_are_as_many_as_labels_say(sweep_context: SweepContext) -> None:
    plan = shared_lists(sweep_context.plan, Sharing(query_block=16))
    comparison = KINDS["voters"](replace(sweep_context, plan=plan))
    assert comparison.base == "16 queries, all vote"
    assert [point.label for point in comparison.points] == [
        "16 queries, all vote",
        "16 queries, 50% vote",
        "16 queries, 50% vote in every head",
        "16 queries, 25% vote",
        "16 queries, 25% vote in every head",
        "32 queries, all vote",
        "32 queries, 50% vote",
        "32 queries, 50% vote in every head",
        "32 queries, 25% vote",
        "32 queries, 25% vote in every head",
        "32 queries, 12% vote",
        "32 queries, 12% vote in every head",
    ]
    for point in comparison.points:
        assert point.budget_of is not None
        sparse = [
            head for row in point.budget_of.heads for head in row if head.keep_ratio_q16 < RATIO_ONE
        ]
        voting = np.mean([1 / head.query_stride for head in sparse])
        allowed = next((f for f in (0.5, 0.25, 0.125) if f"{f:.0%} vote" in point.label), 1.0)
        assert voting <= allowed
        assert voting == allowed or "every" not in point.label


def test_the_rest_is_dropped_or_counted(sweep_context: SweepContext) -> None:
    comparison = KINDS["rest"](sweep_context)
    assert comparison.base == "dropped"
    rests = {}
    for point in comparison.points:
        assert point.budget_of is not None
        rests[point.label] = point.budget_of.rest
    assert rests == {"dropped": "dropped", "mean": "mean"}


def test_an_ablation_drops_a_rest_that_counts(sweep_context: SweepContext) -> None:
    labels = [point.label for point in KINDS["ablation"](sweep_context).points]
    assert "without the rest" not in labels
    plan = sweep_context.plan.model_copy(update={"rest": "mean"})
    comparison = KINDS["ablation"](replace(sweep_context, plan=plan))
    specs = {point.label: point.budget_of for point in comparison.points}
    whole = specs["shadowAttn"]
    assert whole is not None
    assert replace(whole, rest="dropped") == specs["without the rest"] != whole


def test_without_shared_lists_no_one_votes(sweep_context: SweepContext) -> None:
    with pytest.raises(ConfigError, match="--query-block"):
        KINDS["voters"](sweep_context)


def test_one_bucket_is_a_plan_of_its_own(sweep_context: SweepContext) -> None:
    document = run_sweep("ablation", sweep_context, command="shadowattn eval")
    hashes = [point.plan_sha256 for point in document.points[:3]]
    assert len(set(hashes)) == 3
    assert any("pipeline" in note for note in document.notes)


def test_the_integer_twin_attends_like_the_kernel(
    tiny_context: EvaluationContext, sweep_context: SweepContext
) -> None:
    model, spec = sweep_context.model, shadow_spec(tiny_context.plan, tiny_context.architecture)
    ids = tiny_context.windows[0].token_ids.tolist()

    def losses(use: Callable[[], None]) -> np.ndarray:
        use()
        return score_tokens(model.session, ids).log_probabilities

    kernel = losses(lambda: model.use_plan(spec))
    twin = losses(lambda: model.use(ShadowTwin(spec)))
    full = losses(lambda: model.use(Full(spec.attention)))
    assert np.abs(twin - kernel).max() < 1e-3
    assert np.abs(full - kernel).max() > 1e-2


def _request(texts: Path, tmp_path: Path, **changes: object) -> SweepRequest:
    values = {
        "kinds": ("method",),
        "corpus": (str(texts),),
        "calibration_corpus": ("pydoc",),
        "calibration_windows": 1,
        "settings": SETTINGS,
        "others": {},
        "report_folder": tmp_path / "report",
        "command": "shadowattn eval",
        "measurements_folder": tmp_path / "measured",
    }
    return SweepRequest(**values | changes)  # type: ignore[arg-type]


def test_a_request_ends_in_reports(
    tiny_context: EvaluationContext, tiny_texts: Path, tmp_path: Path
) -> None:
    seen: list[str] = []
    run_sweeps(
        tiny_context.directory,
        tiny_context.plan,
        _request(tiny_texts, tmp_path),
        on_report=lambda path: seen.append(path.name),
    )
    assert seen == ["method.json", "method.md", "method.png"]
    assert all((tmp_path / "report" / name).is_file() for name in seen)


def test_texts_on_both_sides_are_refused(
    tiny_context: EvaluationContext, tiny_texts: Path, tmp_path: Path
) -> None:
    one = read_documents([str(tiny_texts)])[0].name
    request = _request(tiny_texts, tmp_path, calibration_corpus=(str(tiny_texts),))
    with pytest.raises(ConfigError, match=f"{one} in both"):
        run_sweeps(tiny_context.directory, tiny_context.plan, request)


def test_unknown_sweeps_are_refused() -> None:
    assert require_kinds(["sigma", "ratio"]) == ("sigma", "ratio")
    with pytest.raises(ConfigError, match="unknown sweep 'speed': expected one of ratio"):
        require_kinds(["speed"])
