from __future__ import annotations

import numpy as np
import pytest

from shadowattn_tvm.calibrate import HeadScales, ReferenceModel, measure_scales
from shadowattn_tvm.corpora import Window
from shadowattn_tvm.errors import ConfigError, WeightsError

from . import numpy_llama
from .tiny_model import tiny_config, tiny_parameters

CHUNK_TOKENS = 16
WINDOWS = tuple(
    Window("random", "0" * 64, 0, ids)
    for ids in np.random.default_rng(11).integers(0, 256, (3, 56))
)


def measure(chunk_tokens: int = CHUNK_TOKENS) -> HeadScales:
    config = tiny_config()
    model = ReferenceModel(config, tiny_parameters(config))
    return measure_scales(model, WINDOWS, prefill_chunk_tokens=chunk_tokens)


def test_scales_equal_a_recomputation_in_numpy() -> None:
    config = tiny_config()
    parameters = tiny_parameters(config)
    q_scales, k_scales = [], []  # one [layers, heads] for each chunk that has a past
    for ids in [window.token_ids for window in WINDOWS]:
        trace = numpy_llama.run(config, parameters, ids)
        q, k = np.stack(trace.q), np.stack(trace.k)  # [layers, tokens, heads, head_dim]
        for start in range(CHUNK_TOKENS, len(ids), CHUNK_TOKENS):
            chunk = q[:, start : start + CHUNK_TOKENS]
            q_scales.append(np.abs(chunk).max(axis=(1, 3)) / 127)
            k_scales.append(np.abs(k[:, :start]).max(axis=(1, 3)) / 127)
    assert len(q_scales) == 3 * 3  # the last chunk of a window is a short one
    got = measure()
    for spread, want in ((got.q, np.stack(q_scales)), (got.k, np.stack(k_scales))):
        np.testing.assert_allclose(spread.mean, want.mean(axis=0), rtol=1e-4)
        np.testing.assert_allclose(spread.lowest, want.min(axis=0), rtol=1e-4)
        np.testing.assert_allclose(spread.highest, want.max(axis=0), rtol=1e-4)


def test_two_runs_agree_to_the_bit() -> None:
    first, second = measure(), measure()
    np.testing.assert_array_equal(first.q.mean, second.q.mean)
    np.testing.assert_array_equal(first.k.mean, second.k.mean)


def test_progress_is_told_after_every_window() -> None:
    config = tiny_config()
    told: list[tuple[int, int]] = []
    measure_scales(
        ReferenceModel(config, tiny_parameters(config)),
        WINDOWS,
        prefill_chunk_tokens=CHUNK_TOKENS,
        on_progress=lambda done, total: told.append((done, total)),
    )
    assert told == [(1, 3), (2, 3), (3, 3)]


@pytest.mark.parametrize("chunk_tokens", [0, 56, 100])
def test_chunks_without_a_past_are_refused(chunk_tokens: int) -> None:
    with pytest.raises(ConfigError, match=f"chunk of {chunk_tokens} tokens.* windows of 56"):
        measure(chunk_tokens)


@pytest.mark.parametrize("value", [np.nan, 0.0])
def test_weights_that_yield_no_scale_are_refused(value: float) -> None:
    config = tiny_config()
    parameters = tiny_parameters(config)
    keys_of_head_1 = slice(7 * 16, 8 * 16)  # after six query heads and one KV head of width 16
    parameters["model.layers.2.self_attn.qkv_proj.weight"][keys_of_head_1] = value
    with pytest.raises(WeightsError, match="layer 2, KV head 1: expected finite"):
        measure_scales(
            ReferenceModel(config, parameters), WINDOWS, prefill_chunk_tokens=CHUNK_TOKENS
        )
