"""Ablation against runs of the whole model, and what happens when it is interrupted."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from shadowattn_tvm.calibrate import ReferenceModel, dense_attention
from shadowattn_tvm.calibrate.ablation import measure_ablation
from shadowattn_tvm.calibrate.ablation_document import Ablation, Loss, load_ablation
from shadowattn_tvm.config import cache_dir
from shadowattn_tvm.config.paths import CACHE_VARIABLE
from shadowattn_tvm.corpora import Document, sample_windows
from shadowattn_tvm.errors import ConfigError, WeightsError
from shadowattn_tvm.runtime.tokenizer import ModelTokenizer
from shadowattn_tvm.weights import ModelDirectory, load_parameters

DOCUMENTS = (
    Document("fox", "The quick brown fox jumps over the lazy dog. " * 5),
    Document("count", "".join(f"{i} sheep, " for i in range(40))),
)
SETTINGS: dict[str, Any] = {"num_windows": 7, "window_tokens": 24}


@pytest.fixture(scope="module")
def ablation(tiny_directory: ModelDirectory, tmp_path_factory: pytest.TempPathFactory) -> Ablation:
    store = tmp_path_factory.mktemp("ablation") / "measured.json"
    return measure_ablation(tiny_directory, DOCUMENTS, store=store, **SETTINGS)


def mean_loss(directory: ModelDirectory, removed: tuple[int, int] | None) -> float:
    """The loss with head `removed` = (layer, head) zeroed, a window at a time through `prefill`."""
    model = ReferenceModel.load(directory)

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        output = dense_attention(layer, q, k, v)
        if removed is not None and removed[0] == layer:
            output[removed[1]] = 0.0
        return output

    return _mean_loss(directory, model, attend)


def bypassed_loss(directory: ModelDirectory, layer: int) -> float:
    """The loss with a layer's contributions to the residual stream silenced by its weights."""
    parameters = dict(load_parameters(directory))
    for name in ("self_attn.o_proj", "mlp.down_proj"):
        key = f"model.layers.{layer}.{name}.weight"
        parameters[key] = np.zeros_like(parameters[key])
    return _mean_loss(
        directory, ReferenceModel(directory.architecture, parameters), dense_attention
    )


def _mean_loss(directory: ModelDirectory, model: ReferenceModel, attend: Any) -> float:
    windows = sample_windows(
        DOCUMENTS,
        ModelTokenizer.from_directory(directory.path),
        window_tokens=SETTINGS["window_tokens"],
        max_windows=SETTINGS["num_windows"],
    )
    losses = []
    with torch.inference_mode():
        for window in windows:
            hidden = model.prefill(window.token_ids, chunk_tokens=9, attend=attend)
            log_p = model.logits(hidden).double().log_softmax(-1).numpy()
            losses += list(-log_p[np.arange(len(hidden) - 1), window.token_ids[1:]])
    return float(np.mean(losses))


def test_baseline_is_the_models_loss(ablation: Ablation, tiny_directory: ModelDirectory) -> None:
    assert ablation.baseline.mean == pytest.approx(mean_loss(tiny_directory, None), abs=1e-5)
    assert ablation.baseline.perplexity == math.exp(ablation.baseline.mean)


@pytest.mark.parametrize("head", [0, 5])
@pytest.mark.parametrize("layer", [0, 1, 2])
def test_removing_a_head_equals_zeroing_its_output(
    layer: int, head: int, ablation: Ablation, tiny_directory: ModelDirectory
) -> None:
    want = mean_loss(tiny_directory, (layer, head))
    assert ablation.layers[layer].heads[head].mean == pytest.approx(want, abs=1e-5)
    assert abs(want - ablation.baseline.mean) > 1e-3  # the head does something


@pytest.mark.parametrize("layer", [0, 1, 2])
def test_bypassing_a_layer_leaves_out_attention_and_mlp(
    layer: int, ablation: Ablation, tiny_directory: ModelDirectory
) -> None:
    want = bypassed_loss(tiny_directory, layer)
    assert ablation.layers[layer].bypassed.mean == pytest.approx(want, abs=1e-5)
    assert abs(want - ablation.baseline.mean) > 1e-3


def test_progress_ends_at_its_total_and_never_falls(
    tiny_directory: ModelDirectory, tmp_path: Path
) -> None:
    seen: list[tuple[int, int]] = []
    measure_ablation(
        tiny_directory,
        DOCUMENTS,
        store=tmp_path / "a.json",
        on_progress=lambda done, total: seen.append((done, total)),
        **SETTINGS,
    )
    done = [d for d, _ in seen]
    assert done == sorted(done)
    assert len({total for _, total in seen}) == 1
    assert seen[-1][0] == seen[-1][1]


class StopHereError(Exception):
    pass


def test_an_interrupted_run_resumes_where_it_was(
    ablation: Ablation, tiny_directory: ModelDirectory, tmp_path: Path
) -> None:
    store = tmp_path / "a.json"

    def interrupt(done: int, total: int) -> None:
        if done > 0.7 * total:
            raise StopHereError

    with pytest.raises(StopHereError):
        measure_ablation(tiny_directory, DOCUMENTS, store=store, on_progress=interrupt, **SETTINGS)
    kept = load_ablation(store)
    assert 0 < len(kept.layers) < kept.inputs.num_layers
    assert not kept.complete

    seen: list[tuple[int, int]] = []
    resumed = measure_ablation(
        tiny_directory,
        DOCUMENTS,
        store=store,
        on_progress=lambda done, total: seen.append((done, total)),
        **SETTINGS,
    )
    assert resumed == ablation == load_ablation(store)
    assert seen[0][0] > 0.3 * seen[0][1]  # it started from what was done
    assert seen[-1][0] == seen[-1][1]


def test_a_second_measurement_costs_nothing(
    ablation: Ablation,
    tiny_directory: ModelDirectory,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    assert measure_ablation(tiny_directory, DOCUMENTS, **SETTINGS) == ablation
    [stored] = (cache_dir() / "ablations").iterdir()
    assert stored.stem == ablation.inputs.key

    def fail(done: int, total: int) -> None:
        raise AssertionError("measured again")

    again = measure_ablation(tiny_directory, DOCUMENTS, on_progress=fail, **SETTINGS)
    assert again == ablation


def test_other_windows_are_another_measurement(
    ablation: Ablation, tiny_directory: ModelDirectory, tmp_path: Path
) -> None:
    store = tmp_path / "a.json"
    store.write_text(ablation.model_dump_json())
    with pytest.raises(ConfigError, match=r"a\.json: expected a measurement of this model"):
        measure_ablation(tiny_directory, DOCUMENTS[:1], store=store, num_windows=3)


def _without_a_head(document: dict[str, Any]) -> None:
    document["layers"][1]["heads"].pop()


def _with_a_layer_more(document: dict[str, Any]) -> None:
    document["layers"].append(document["layers"][0])


def _with_an_infinite_loss(document: dict[str, Any]) -> None:
    document["layers"][0]["bypassed"]["mean"] = 1e9


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_without_a_head, r"layers\[1\]\.heads: expected 6, got 5"),
        (_with_a_layer_more, "expected at most 3 layers, got 4"),
        (_with_an_infinite_loss, "layers.0.bypassed.mean"),
    ],
)
def test_a_damaged_store_is_named(
    damage: Any, message: str, ablation: Ablation, tmp_path: Path
) -> None:
    document = json.loads(ablation.model_dump_json())
    damage(document)
    (tmp_path / "a.json").write_text(json.dumps(document))
    with pytest.raises(ConfigError, match=message):
        load_ablation(tmp_path / "a.json")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"window_tokens": 257}, r"2 to 256 tokens \(the model's context\), got 257"),
        ({"window_tokens": 1}, r"2 to 256 tokens \(the model's context\), got 1"),
        ({"num_windows": 0}, "at least 1 windows, .* got 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(
    settings: dict[str, int], message: str, tiny_directory: ModelDirectory
) -> None:
    with pytest.raises(ConfigError, match=message):
        measure_ablation(tiny_directory, DOCUMENTS, **settings)


@pytest.mark.parametrize("mean", [float("nan"), float("inf"), -0.1, 1e4])
def test_a_loss_no_model_has_is_the_weights_fault(mean: float) -> None:
    with pytest.raises(WeightsError, match="the weights look corrupt"):
        Loss.of(mean)
