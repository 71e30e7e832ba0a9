"""Whole calibrations of the tiny model: plans, budgets, interruptions."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shadowattn_tvm.calibrate import (
    CalibrationSettings,
    Method,
    MethodContext,
    Ratios,
    calibrate,
    fisher_ratios,
    uniform_ratios,
)
from shadowattn_tvm.cli.plan_pairs import window_pairs
from shadowattn_tvm.compiler.kernel_parameters import shadow_spec
from shadowattn_tvm.corpora import Document
from shadowattn_tvm.errors import ConfigError
from shadowattn_tvm.plan import BucketGrid, Pilot, Plan, Sharing, load_plan, plan_hash, save_plan
from shadowattn_tvm.weights import ModelDirectory, model_fingerprint

from .tiny_model import tiny_config, write_tiny_model

CORPUS = (
    Document("foxes", "The quick brown fox jumps over the lazy dog. " * 20),
    Document("quartz", "Sphinx of black quartz, judge my vow, or not! " * 20),
)
METHODS: dict[str, Method] = {"uniform": uniform_ratios, "fisher": fisher_ratios}


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> ModelDirectory:
    """A tiny model whose conversations begin with byte 7 of its vocabulary."""
    folder = tmp_path_factory.mktemp("tiny-model")
    return write_tiny_model(folder, tiny_config(), system_prefix_token_ids=(7,))


def make(
    directory: ModelDirectory,
    method: str = "uniform",
    ratio: float = 0.4,
    *,
    documents: Sequence[Document] = CORPUS,
    partial: Path | None = None,
    **settings: Any,
) -> Plan:
    chosen = CalibrationSettings(
        ratio=ratio, **{"window_tokens": 96, "num_windows": 2, "k_min": 5, **settings}
    )
    name = "uniform" if method == "uniform" else "fisher"
    return calibrate(directory, documents, name, METHODS[method], chosen, partial_path=partial)


PILOTS = {
    "per query": (Pilot(), Sharing()),
    "4 bits, centred, rotated": (
        Pilot(bits=4, center_keys=True, hadamard_rotation=True),
        Sharing(),
    ),
    "groups in blocks of 8": (Pilot(score_bits=8), Sharing(gqa_group=True, query_block=8)),
}


@pytest.mark.parametrize("name", PILOTS)
@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("dense_layers", [(), (1,)])
def test_every_method_meets_the_budget_with_everything_inside(
    directory: ModelDirectory, method: str, name: str, dense_layers: tuple[int, ...]
) -> None:
    pilot, sharing = PILOTS[name]
    plan = make(
        directory, method, ratio=0.6, pilot=pilot, sharing=sharing, dense_layers=dense_layers
    )
    assert plan.dense_layers == dense_layers
    # The finest there is: a position more for one group of heads, in each of 5 chunks at worst.
    one_step = 3 * 16 * 5 / window_pairs(plan).past_total
    reached = window_pairs(plan).past_fraction
    if method == "fisher":
        assert 0.6 - one_step <= reached <= 0.6
    else:
        assert 0.6 - 6 * one_step <= reached <= 0.6  # all heads step at once
    spec = shadow_spec(plan, directory.architecture)  # the kernels take it
    assert spec.pilot.pooled == sharing.pooled


def test_fisher_is_not_uniform_and_groups_share_their_ratio(directory: ModelDirectory) -> None:
    alone = make(directory, "fisher")
    ratios = {head.keep_ratio for layer in alone.layers for head in layer.heads}
    assert len(ratios) > 3
    pilot, sharing = PILOTS["groups in blocks of 8"]
    shared = make(directory, "fisher", pilot=pilot, sharing=sharing)
    by_group = np.array([[h.keep_ratio for h in layer.heads] for layer in shared.layers])
    by_group = by_group.reshape(3, 2, 3)
    np.testing.assert_array_equal(by_group, np.repeat(by_group[:, :, :1], 3, axis=2))
    assert len(np.unique(by_group)) > 2


def test_the_plan_says_what_was_asked_for(directory: ModelDirectory) -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    plan = make(
        directory,
        ratio=0.5,
        buckets=BucketGrid(sigma=0.6, per_axis=5),
        pilot=Pilot(score_bits=8),
        dense_layers=(1,),
    )
    assert (plan.buckets.sigma, plan.buckets.per_axis, plan.k_min) == (0.6, 5, 5)
    table = plan.layers[0].heads[0].requant
    assert table is not None
    assert [len(row) for row in table] == [5] * 5
    assert plan.model.name == directory.path.name
    assert plan.model.fingerprint == model_fingerprint(directory)
    made = plan.provenance
    assert (made.method, made.ratio) == ("uniform", 0.5)
    assert [(d.name, d.sha256) for d in made.corpus] == [(d.name, d.sha256) for d in CORPUS]
    assert (made.num_windows, made.window_tokens) == (2, 96)
    assert made.prefill_chunk_tokens == 16  # the model directory's own
    assert made.tool_version == version("shadowattn-tvm")
    assert before <= made.created <= datetime.now(UTC)


def test_a_ratio_of_one_keeps_everything(directory: ModelDirectory) -> None:
    for method in METHODS:
        plan = make(directory, method, ratio=1.0)
        assert window_pairs(plan).past_fraction == 1.0


def test_windows_fit_the_model_by_default(directory: ModelDirectory) -> None:
    plan = make(directory, window_tokens=None, num_windows=50)
    assert plan.provenance.window_tokens == 256  # the tiny model's context, less than 2,048
    assert plan.provenance.num_windows == sum(len(d.text) // 255 for d in CORPUS)


def test_long_chunks_are_cut_to_half_a_window(tmp_path: Path) -> None:
    whole_context = write_tiny_model(tmp_path, tiny_config(prefill_chunk_size=256))
    assert make(whole_context).provenance.prefill_chunk_tokens == 48


@pytest.mark.parametrize("method", METHODS)
def test_calibrating_twice_gives_the_same_plan(
    directory: ModelDirectory, tmp_path: Path, method: str
) -> None:
    first, second = make(directory, method), make(directory, method)
    assert plan_hash(first) == plan_hash(second)
    save_plan(first, tmp_path / "plan.json")
    assert load_plan(tmp_path / "plan.json") == first


class InterruptionError(Exception):
    """Somebody pressed a key."""


def test_an_interrupted_run_goes_on_to_the_same_plan(
    directory: ModelDirectory, tmp_path: Path
) -> None:
    partial = tmp_path / "plan.json.partial"
    pilot, sharing = PILOTS["groups in blocks of 8"]
    settings = CalibrationSettings(
        ratio=0.4, window_tokens=96, num_windows=3, k_min=5, pilot=pilot, sharing=sharing
    )
    done: list[tuple[str, int]] = []

    def run(stop_after: tuple[str, int] | None) -> Plan:
        def progress(stage: str, windows: int, total: int) -> None:
            done.append((stage, windows))
            if (stage, windows) == stop_after:
                raise InterruptionError

        return calibrate(
            directory,
            CORPUS,
            "fisher",
            fisher_ratios,
            settings,
            partial_path=partial,
            progress=progress,
        )

    for stop in (("scales", 2), ("scores", 1), ("fisher", 2)):
        with pytest.raises(InterruptionError):
            run(stop)
    resumed = run(None)
    assert done[-9:] == [(stage, n) for stage in ("scales", "scores", "fisher") for n in (1, 2, 3)]
    partial.unlink()
    assert plan_hash(run(None)) == plan_hash(resumed)


def test_another_budget_needs_no_measuring_again(
    directory: ModelDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    partial = tmp_path / "partial"
    make(directory, "fisher", partial=partial)

    def no_prefill(*_: object, **__: object) -> None:
        raise AssertionError("measured again")

    monkeypatch.setattr("shadowattn_tvm.calibrate.ReferenceModel.prefill", no_prefill)
    assert window_pairs(make(directory, "fisher", 0.7, partial=partial)).past_fraction > 0.69
    with pytest.raises(AssertionError, match="measured again"):
        make(directory, "fisher", 0.7, partial=partial, k_min=6)


def test_a_method_sees_the_pilot_it_allocates_for(directory: ModelDirectory) -> None:
    seen: list[MethodContext] = []

    def watch(context: MethodContext) -> Ratios:
        seen.append(context)
        return uniform_ratios(context)

    pilot, sharing = PILOTS["groups in blocks of 8"]
    settings = CalibrationSettings(
        ratio=0.4, window_tokens=96, num_windows=1, k_min=5, pilot=pilot, sharing=sharing
    )
    plan = calibrate(directory, CORPUS, "ratios", watch, settings)
    (context,) = seen
    final = shadow_spec(plan, directory.architecture)
    for draft, kept in zip(context.spec.heads, final.heads, strict=True):
        assert [h.requant for h in draft] == [h.requant for h in kept]
        assert [h.q_scale for h in draft] == [h.q_scale for h in kept]
    assert (context.spec.pilot, context.spec.k_min) == (final.pilot, 5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ratio": 1.5}, "ratio between 0 and 1, got 1.5"),
        ({"ratio": float("nan")}, "ratio between 0 and 1, got nan"),
        ({"ratio": 0.2, "dense_layers": (0,)}, r"at least 0\.\d+: 1 of 3 layers are dense"),
        ({"k_min": 0}, "k_min of at least 1 position, got 0"),
        ({"dense_layers": (3,)}, "different dense layers between 0 and 2, got 3"),
        ({"dense_layers": (1, 1)}, "different dense layers between 0 and 2, got 1, 1"),
        ({"window_tokens": 257}, r"2 to 256 tokens \(the model's context\), got 257"),
        ({"num_windows": 0}, r"at least 1 windows, .* got 0"),
        ({"prefill_chunk_tokens": 96}, r"chunk of 96 tokens.* windows of 96 tokens"),
        ({"sharing": Sharing(query_block=8)}, "expected 8 or 9 score bits"),
        ({"requant_percentile": 101.0}, "percentile of 0 to 100, got 101"),
        ({"requant_margin": 1.0}, "margin of 0 or more, below 1, got 1"),
    ],
)
def test_settings_that_cannot_be_are_refused(
    directory: ModelDirectory, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        make(directory, **settings)


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    small_vocabulary = write_tiny_model(tmp_path, tiny_config(vocab_size=50))
    with pytest.raises(ConfigError, match=r"vocabulary of 50, got .* from its tokenizer"):
        make(small_vocabulary)
