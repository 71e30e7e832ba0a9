from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from shadowattn_tvm.calibrate import PartialResults, dense_attention
from shadowattn_tvm.calibrate.progress import silent
from shadowattn_tvm.calibrate.requantization import Table, observe_scores, requant_table
from tir_kernels.pilot.quantize import bucket_scales
from tir_kernels.reference.pilot import choose_bucket, pilot_scores, quantize
from tir_kernels.spec import AttentionSpec, HeadParameters, ShadowSpec

from .subjects import CHUNK_TOKENS, tiny_subject

HEAD = HeadParameters(q_scale=0.1, k_scale=0.2, keep_ratio_q16=0)


def table(observed: list[list[int]], percentile: float = 0.0, margin: float = 0.0) -> Table:
    return requant_table(
        HEAD,
        np.array(observed),
        sigma=0.5,
        per_axis=3,
        score_max=127,
        percentile=percentile,
        margin=margin,
    )


def test_a_factor_is_a_percentile_of_what_was_observed_less_a_margin() -> None:
    observed = [[1, 1, 1000], [1, 1, 2000], [1, 1, 4000]]
    # Factors 127 / 1000, / 2000 and / 4000.
    assert table(observed)[1][1] == pytest.approx(127 / 4000)
    assert table(observed, percentile=50)[1][1] == pytest.approx(127 / 2000)
    assert table(observed, percentile=75)[1][1] == pytest.approx((127 / 2000 + 127 / 1000) / 2)
    assert table(observed, margin=0.1)[1][1] == pytest.approx(0.9 * 127 / 4000)


def test_pairs_never_observed_get_the_largest_output_scale_of_the_others() -> None:
    # Pair (1, 1): s_o = 0.1 * 0.2 * 1000 / 127; pair (0, 1): 0.05 * 0.2 * 4000 / 127, larger.
    factors = table([[1, 1, 1000], [0, 1, 4000]])
    assert factors[1][1] == pytest.approx(127 / 1000)
    assert factors[0][1] == pytest.approx(127 / 4000)
    output_scale = 0.05 * 0.2 * 4000 / 127
    for q, q_scale in enumerate((0.05, 0.1, 0.2)):
        for k, k_scale in enumerate((0.1, 0.2, 0.4)):
            if (q, k) not in ((1, 1), (0, 1)):
                assert factors[q][k] == pytest.approx(q_scale * k_scale / output_scale, rel=1e-6)


def test_scores_of_zero_divide_nothing() -> None:
    assert table([[1, 1, 0]])[1][1] == 1.0  # INT8 scores as they are


def test_observed_scores_are_the_twins(tmp_path: Path) -> None:
    subject = tiny_subject(tmp_path)
    spec = ShadowSpec(
        attention=AttentionSpec(6, 2, 16, sm_scale=0.25),
        heads=((HeadParameters(0.02, 0.02, 0),) * 6,) * 3,
        bucket_sigma=0.5,
        k_min=1,
    )
    want: list[list[list[list[int]]]] = [[], [], []]

    def attend(layer: int, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        past = k.shape[1] - q.shape[1]
        rows = []
        for head in range(6 if past else 0):
            queries, keys = q[head].numpy(), k[head // 3, :past].numpy()
            buckets = choose_bucket(queries, 0.02, 0.5), choose_bucket(keys, 0.02, 0.5)
            scales = [np.float32(bucket_scales(0.02, 0.5)[bucket]) for bucket in buckets]
            acc = pilot_scores(quantize(queries, scales[0]), quantize(keys, scales[1]))
            rows.append([*buckets, int(np.abs(acc).max())])
        if past:
            want[layer].append(rows)
        return dense_attention(layer, q, k, v)

    with torch.inference_mode():
        for window in subject.windows:
            subject.model.prefill(window.token_ids, chunk_tokens=CHUNK_TOKENS, attend=attend)
    got = observe_scores(subject, spec, PartialResults.in_memory(), silent)
    np.testing.assert_array_equal(got, np.array(want))
