"""The real SmolLM2: the torch model against Hugging Face, and calibration end to end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from shadowattn_tvm.calibrate import (
    CalibrationSettings,
    ReferenceModel,
    ShadowAttention,
    calibrate,
    fisher_ratios,
    uniform_ratios,
)
from shadowattn_tvm.cli.plan_pairs import window_pairs
from shadowattn_tvm.compiler.kernel_parameters import shadow_spec
from shadowattn_tvm.corpora import read_documents
from shadowattn_tvm.plan import Plan, load_plan, save_plan
from shadowattn_tvm.runtime.tokenizer import ModelTokenizer
from shadowattn_tvm.weights import ModelDirectory

pytestmark = pytest.mark.model

NUM_TOKENS = 300


@pytest.mark.golden
@pytest.mark.parametrize("quantization", ["q0f32", "q4f32_1"])
def test_logits_equal_hugging_face(
    smollm2_dir: Callable[[str], ModelDirectory], quantization: str
) -> None:
    from tests.golden.hugging_face import hf_logits, hf_model

    directory = smollm2_dir(quantization)
    text = read_documents(["pydoc"])[0].text[:4000]
    ids = ModelTokenizer.from_directory(directory.path).encode(text)[:NUM_TOKENS]
    want = hf_logits(hf_model(directory), ids).numpy()
    model = ReferenceModel.load(directory)
    with torch.inference_mode():
        got = model.logits(model.prefill(np.array(ids), chunk_tokens=128)).numpy()
    np.testing.assert_allclose(got, want, atol=1e-4, rtol=0)
    # Logits of some model would agree too: this one reads English.
    following = want[np.arange(NUM_TOKENS - 1), ids[1:]]
    loss = np.logaddexp.reduce(want[:-1], axis=1) - following
    assert np.exp(loss.mean()) < 100


def test_one_plan_serves_both_quantizations(
    smollm2_dir: Callable[[str], ModelDirectory], tmp_path: Path
) -> None:
    settings = CalibrationSettings(
        ratio=0.2, num_windows=1, window_tokens=256, prefill_chunk_tokens=128, k_min=16
    )
    documents = read_documents(["pydoc"])
    plans = [
        calibrate(smollm2_dir(quantization), documents, "uniform", uniform_ratios, settings)
        for quantization in ("q0f32", "q4f32_1")
    ]
    plain, quantized = plans
    assert plain.model.fingerprint == quantized.model.fingerprint
    assert window_pairs(plain).past_fraction == pytest.approx(0.2, abs=0.01)
    for field in ("q_scale", "k_scale"):
        scales = [
            [getattr(head, field) for layer in plan.layers for head in layer.heads]
            for plan in plans
        ]
        # 4-bit weights move the scales, but by a fraction of a bucket's factor of two.
        np.testing.assert_allclose(scales[1], scales[0], rtol=0.3)
    save_plan(plain, tmp_path / "plan.json")
    assert load_plan(tmp_path / "plan.json") == plain


@pytest.mark.slow
def test_fisher_costs_less_than_uniform_at_the_same_budget(
    smollm2_dir: Callable[[str], ModelDirectory],
) -> None:
    directory = smollm2_dir("q0f32")
    documents = read_documents(["pydoc"])
    settings = CalibrationSettings(
        ratio=0.15, num_windows=2, window_tokens=640, prefill_chunk_tokens=128, k_min=8
    )
    # Of another topic than the windows of calibration, which are the first and the middle one.
    ids = np.array(ModelTokenizer.from_directory(directory.path).encode(documents[3].text)[:640])
    model = ReferenceModel.load(directory)

    def divergence(plan: Plan) -> float:
        """Mean KL divergence from the dense model's next-token distribution, nats."""
        spec = shadow_spec(plan, directory.architecture)
        with torch.inference_mode():
            dense = model.logits(model.prefill(ids, chunk_tokens=128))
            hidden = model.prefill(ids, chunk_tokens=128, attend=ShadowAttention(spec))
            p, q = dense.log_softmax(-1), model.logits(hidden).log_softmax(-1)
        return float((p.exp() * (p - q)).sum(-1).mean())

    fisher = calibrate(directory, documents, "fisher", fisher_ratios, settings)
    uniform = calibrate(directory, documents, "uniform", uniform_ratios, settings)
    assert window_pairs(fisher).past_fraction <= 0.15
    assert window_pairs(uniform).past_fraction <= 0.15
    assert 0.0 < divergence(fisher) < 0.5 * divergence(uniform)
