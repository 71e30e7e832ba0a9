from __future__ import annotations

from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shadowattn_tvm.calibrate import (
    ReferenceModel,
    calibrate_uniform,
    measure_scales,
    sparse_keep_ratio,
)
from shadowattn_tvm.corpora import Document, sample_windows
from shadowattn_tvm.errors import ConfigError
from shadowattn_tvm.plan import Plan, load_plan, plan_hash, save_plan
from shadowattn_tvm.runtime.tokenizer import ModelTokenizer
from shadowattn_tvm.weights import ModelDirectory, model_fingerprint

from .tiny_model import tiny_config, write_tiny_model

CORPUS = (Document("alphabet", "The quick brown fox jumps over the lazy dog. " * 40),)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> ModelDirectory:
    """A tiny model whose conversations begin with byte 7 of its vocabulary."""
    folder = tmp_path_factory.mktemp("tiny-model")
    return write_tiny_model(folder, tiny_config(), system_prefix_token_ids=(7,))


def calibrate(directory: ModelDirectory, ratio: float = 0.5, **settings: Any) -> Plan:
    return calibrate_uniform(directory, ratio, CORPUS, **{"window_tokens": 64, **settings})


@given(data=st.data(), num_layers=st.integers(1, 80))
@settings(deadline=None, max_examples=200)
def test_the_budget_is_met_exactly(data: st.DataObject, num_layers: int) -> None:
    dense = data.draw(st.sets(st.integers(0, num_layers - 1), max_size=num_layers))
    ratio = data.draw(st.floats(0.0, 1.0))
    if ratio < len(dense) / num_layers:
        with pytest.raises(ConfigError, match="expected a ratio of at least"):
            sparse_keep_ratio(ratio, num_layers, sorted(dense))
        return
    kept = sparse_keep_ratio(ratio, num_layers, sorted(dense))
    assert 0.0 <= kept <= 1.0
    achieved = (len(dense) + (num_layers - len(dense)) * kept) / num_layers
    assert achieved == pytest.approx(ratio, abs=1e-12)


def test_the_design_example() -> None:
    assert sparse_keep_ratio(0.2, 30, (0,)) == pytest.approx(5 / 29)


@given(num_layers=st.integers(2, 200), num_dense=st.integers(1, 199))
@settings(deadline=None, max_examples=100)
def test_the_smallest_ratio_an_error_names_works(num_layers: int, num_dense: int) -> None:
    dense = range(min(num_dense, num_layers))
    with pytest.raises(ConfigError) as error:
        sparse_keep_ratio(0.0, num_layers, dense)
    smallest = float(str(error.value).split("at least ")[1].split(":")[0])
    assert 0.0 <= sparse_keep_ratio(smallest, num_layers, dense) <= 1.0


@pytest.mark.parametrize(
    ("ratio", "dense", "message"),
    [
        (1.01, (), "between 0 and 1, got 1.01"),
        (-0.1, (), "between 0 and 1, got -0.1"),
        (float("nan"), (), "between 0 and 1, got nan"),
        (0.5, (3,), "between 0 and 2, got 3"),
        (0.5, (-1,), "between 0 and 2, got -1"),
        (1.0, (1, 1), "different dense layers between 0 and 2, got 1, 1"),
        (0.3, (0,), "at least 0.3334: 1 of 3 layers are dense and count in full, got 0.3"),
    ],
)
def test_impossible_budgets_are_refused(ratio: float, dense: tuple[int, ...], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        sparse_keep_ratio(ratio, 3, dense)


def test_the_plan_holds_the_measured_scales(directory: ModelDirectory) -> None:
    plan = calibrate(directory, num_windows=5, prefill_chunk_tokens=24)
    windows = sample_windows(
        CORPUS,
        ModelTokenizer.from_directory(directory.path),
        window_tokens=64,
        max_windows=5,
        prefix_ids=(7,),
    )
    scales = measure_scales(ReferenceModel.load(directory), windows, prefill_chunk_tokens=24)
    for layer, layer_plan in enumerate(plan.layers):
        q = [head.q_scale for head in layer_plan.heads]
        k = [head.k_scale for head in layer_plan.heads]
        np.testing.assert_allclose(q, scales.q.mean[layer], rtol=1e-5)
        np.testing.assert_allclose(k, np.repeat(scales.k.mean[layer], 3), rtol=1e-5)


def test_the_plan_says_what_was_asked_for(directory: ModelDirectory) -> None:
    before = datetime.now(UTC).replace(microsecond=0)
    plan = calibrate(directory, 0.5, sigma=0.6, dense_layers=(1,), k_min=8, num_windows=3)
    assert plan.past_fraction == pytest.approx(0.5)
    assert plan.dense_layers == (1,)
    assert {h.keep_ratio for h in plan.layers[1].heads} == {1.0}
    assert {h.keep_ratio for i in (0, 2) for h in plan.layers[i].heads} == {0.25}
    assert (plan.buckets.sigma, plan.k_min) == (0.6, 8)
    assert plan.model.name == directory.path.name
    assert plan.model.fingerprint == model_fingerprint(directory)
    provenance = plan.provenance
    assert (provenance.method, provenance.ratio) == ("uniform", 0.5)
    corpus = [(document.name, document.sha256) for document in provenance.corpus]
    assert corpus == [("alphabet", CORPUS[0].sha256)]
    assert (provenance.num_windows, provenance.window_tokens) == (3, 64)
    assert provenance.prefill_chunk_tokens == 16  # the model directory's own
    assert provenance.tool_version == version("shadowattn-tvm")
    assert before <= provenance.created <= datetime.now(UTC)


def test_a_ratio_of_one_keeps_everything(directory: ModelDirectory) -> None:
    plan = calibrate(directory, 1.0)
    assert plan.past_fraction == 1.0
    assert {head.keep_ratio for layer in plan.layers for head in layer.heads} == {1.0}
    assert plan.dense_layers == (0,)


def test_windows_fit_the_model_by_default(directory: ModelDirectory) -> None:
    plan = calibrate_uniform(directory, 0.5, CORPUS)
    assert plan.provenance.window_tokens == 256  # the tiny model's context, less than 1,024
    assert plan.provenance.num_windows == len(CORPUS[0].text) // 255  # fewer than the default 8


def test_long_chunks_are_cut_to_half_a_window(tmp_path: Path) -> None:
    whole_context = write_tiny_model(tmp_path, tiny_config(prefill_chunk_size=256))
    assert calibrate(whole_context).provenance.prefill_chunk_tokens == 32


def test_calibrating_twice_gives_the_same_plan(directory: ModelDirectory, tmp_path: Path) -> None:
    first, second = calibrate(directory), calibrate(directory)
    assert plan_hash(first) == plan_hash(second)
    save_plan(first, tmp_path / "plan.json")
    assert load_plan(tmp_path / "plan.json") == first


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"ratio": 0.2}, "at least 0.3334"),
        ({"sigma": 1.0}, "sigma between 0 and 1, got 1.0"),
        ({"k_min": 0}, "k_min of at least 1 position, got 0"),
        ({"window_tokens": 257}, r"2 to 256 tokens \(the model's context\), got 257"),
        ({"window_tokens": 1}, r"2 to 256 tokens \(the model's context\), got 1"),
        ({"num_windows": 0}, "at least 1 windows, .* got 0"),
        ({"prefill_chunk_tokens": 64}, "chunk of 64 tokens.* windows of 64 tokens"),
    ],
)
def test_settings_that_cannot_be_are_refused(
    directory: ModelDirectory, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        calibrate(directory, **settings)


def test_a_tokenizer_of_another_model_is_refused(tmp_path: Path) -> None:
    small_vocabulary = write_tiny_model(tmp_path, tiny_config(vocab_size=50))
    with pytest.raises(ConfigError, match=r"vocabulary of 50, got .* from its tokenizer"):
        calibrate(small_vocabulary)
