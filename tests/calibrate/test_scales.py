from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from shadowattn_tvm.calibrate import PartialResults, Subject
from shadowattn_tvm.calibrate.progress import silent
from shadowattn_tvm.calibrate.scales import PilotScales, measure_scales
from shadowattn_tvm.errors import WeightsError
from shadowattn_tvm.plan import Pilot
from tir_kernels.reference.pilot import hadamard

from . import numpy_llama
from .subjects import CHUNK_TOKENS, WINDOW_TOKENS, tiny_subject
from .tiny_model import tiny_config, tiny_parameters

PILOTS = {
    "plain": Pilot(),
    "4 bits": Pilot(bits=4),
    "centred": Pilot(center_keys=True),
    "rotated": Pilot(hadamard_rotation=True),
    "centred and rotated": Pilot(center_keys=True, hadamard_rotation=True),
}


@pytest.fixture
def subject(tmp_path: Path) -> Subject:
    return tiny_subject(tmp_path)


def measure(subject: Subject, pilot: Pilot, partial: PartialResults | None = None) -> PilotScales:
    return measure_scales(subject, pilot, partial or PartialResults.in_memory(), silent)


@pytest.mark.parametrize("name", PILOTS)
def test_scales_equal_a_recomputation_in_numpy(subject: Subject, name: str) -> None:
    pilot = PILOTS[name]
    config = tiny_config()
    traces = [
        numpy_llama.run(config, tiny_parameters(config), window.token_ids)
        for window in subject.windows
    ]
    q = np.stack([trace.q for trace in traces])  # [windows, layers, tokens, heads, head_dim]
    k = np.stack([trace.k for trace in traces])
    means = k.mean(axis=(0, 2))
    if pilot.center_keys:
        k = k - means[None, :, None]
    if pilot.hadamard_rotation:
        q, k = (hadamard(x).astype(np.float64) for x in (q, k))
    starts = range(CHUNK_TOKENS, WINDOW_TOKENS, CHUNK_TOKENS)
    quant_max = 127 if pilot.bits == 8 else 7
    q_scales = [np.abs(q[:, :, s : s + CHUNK_TOKENS]).max(axis=(2, 4)) / quant_max for s in starts]
    k_scales = [np.abs(k[:, :, :s]).max(axis=(2, 4)) / quant_max for s in starts]
    got = measure(subject, pilot)
    np.testing.assert_allclose(got.q, np.mean(q_scales, axis=(0, 1)), rtol=1e-4)
    np.testing.assert_allclose(got.k, np.mean(k_scales, axis=(0, 1)), rtol=1e-4)
    if pilot.center_keys:
        assert got.key_means is not None
        np.testing.assert_allclose(got.key_means, means, atol=1e-5)
    else:
        assert got.key_means is None


def test_two_runs_agree_to_the_bit(subject: Subject) -> None:
    first, second = measure(subject, Pilot()), measure(subject, Pilot())
    np.testing.assert_array_equal(first.q, second.q)
    np.testing.assert_array_equal(first.k, second.k)


def test_progress_is_told_and_windows_already_measured_are_skipped(
    subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[str, int, int]] = []
    path = tmp_path / "partial"
    first = measure_scales(
        subject, Pilot(), PartialResults(path, "f"), lambda *news: told.append(news)
    )
    assert told == [("scales", 1, 3), ("scales", 2, 3), ("scales", 3, 3)]

    def no_prefill(*_: object, **__: object) -> None:
        raise AssertionError("a window was measured twice")

    monkeypatch.setattr(subject.model, "prefill", no_prefill)
    second = measure(subject, Pilot(), PartialResults(path, "f"))
    np.testing.assert_array_equal(first.q, second.q)
    np.testing.assert_array_equal(first.k, second.k)


@pytest.mark.parametrize("value", [np.nan, 0.0])
def test_weights_that_yield_no_scale_are_refused(tmp_path: Path, value: float) -> None:
    name = "model.layers.2.self_attn.qkv_proj.weight"
    weight = tiny_parameters(tiny_config())[name]
    weight[7 * 16 : 8 * 16] = value  # keys of KV head 1: after six query heads and a KV head
    subject = tiny_subject(tmp_path, **{name.replace(".", "__"): weight})
    with pytest.raises(WeightsError, match="layer 2, KV head 1: expected finite"):
        measure(subject, Pilot())
