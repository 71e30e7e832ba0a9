"""The real SmolLM2: the torch model against Hugging Face, and calibration end to end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from shadowattn_tvm.calibrate import ReferenceModel, calibrate_uniform
from shadowattn_tvm.corpora import read_documents
from shadowattn_tvm.plan import load_plan, save_plan
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
    plans = [
        calibrate_uniform(
            smollm2_dir(quantization),
            0.2,
            read_documents(["pydoc"]),
            window_tokens=256,
            num_windows=1,
            prefill_chunk_tokens=128,
        )
        for quantization in ("q0f32", "q4f32_1")
    ]
    plain, quantized = plans
    assert plain.model.fingerprint == quantized.model.fingerprint
    assert plain.past_fraction == pytest.approx(0.2)
    for field in ("q_scale", "k_scale"):
        scales = [
            [getattr(head, field) for layer in plan.layers for head in layer.heads]
            for plan in plans
        ]
        # 4-bit weights move the scales, but by a fraction of a bucket's factor of two.
        np.testing.assert_allclose(scales[1], scales[0], rtol=0.3)
    save_plan(plain, tmp_path / "plan.json")
    assert load_plan(tmp_path / "plan.json") == plain
