"""Pooling's integers against the softmax; the kernels' integers are tested in test_shadow_lists."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tir_kernels.constants import MAX_SHARING_ROWS, RATIO_ONE
from tir_kernels.pilot.pooling import (
    FACTOR_MAX,
    FRACTIONS,
    MAX_POOLED_KEYS,
    MAX_STEP,
    MAX_WEIGHT,
    ROW_BITS,
    STEP_BITS,
    pooling_step,
)
from tir_kernels.reference.pilot import hadamard
from tir_kernels.reference.pooling import exp_table, importance, row_probabilities
from tir_kernels.reference.shadow_prefill import select
from tir_kernels.spec import AttentionSpec, HeadParameters, PilotSpec, ShadowSpec

ROW_SUM = 1 << ROW_BITS


def test_table_by_hand() -> None:
    assert FRACTIONS[0] == FACTOR_MAX == 32767
    assert FRACTIONS[16] == round(32767 / math.sqrt(2))
    # a quarter of an octave per unit: every fourth entry halves
    table = exp_table(1 << (STEP_BITS - 2))
    np.testing.assert_array_equal(table[:9:4], [32766, 16383, 8191])
    assert table[2] == (32767 * FRACTIONS[16] + 16384) >> 15
    # two tables: 35 = 2 * 16 + 3 units are 8 octaves and 3 quarters
    assert table[35] == ((32767 >> 8) * FRACTIONS[24] + 16384) >> 15


@pytest.mark.parametrize("step", [1, 700, 5000, 1 << STEP_BITS, MAX_STEP])
def test_table_never_rises_and_follows_the_power(step: int) -> None:
    table = exp_table(step)
    assert table[0] == MAX_WEIGHT == 2**15 - 2
    assert (np.diff(table) <= 1 + table[:-1] // 32).all()  # parts round apart: a step of a part
    exact = 2.0 ** (15 - np.arange(256) * step / 65536)
    # a 32nd of an octave at most for either part, and what shifting cuts off
    assert (table <= exact * 2 ** (2 / 32) + 1).all()
    assert (table >= exact * (1 - 2**-9) - 2).all()


def test_step_by_hand() -> None:
    # scores of 0.1 * 0.2 per product, ten products to a unit: 0.2 nats of q.k, 0.025 with the scale
    step = pooling_step(0.125, 0.1, 0.2, 0.1)
    assert step == round(0.025 * math.log2(math.e) * 65536)


@pytest.mark.parametrize("num_keys", [1, 2, 100, 5000])
def test_rows_are_probabilities(num_keys: int) -> None:
    rng = np.random.default_rng(num_keys)
    scores = rng.integers(-127, 128, (5, num_keys)).astype(np.int32)
    step = 3000
    got = row_probabilities(scores, step) / ROW_SUM
    weights = 2.0 ** ((scores - scores.max(1, keepdims=True)) * step / 65536)
    want = weights / weights.sum(1, keepdims=True)
    # a step of the table, a unit of what rounds, and a unit of the smallest sum of weights
    np.testing.assert_allclose(got, want, rtol=0.05, atol=2 / ROW_SUM + 2**-15)
    assert np.abs(got.sum(1) - 1).max() < num_keys / ROW_SUM + 1e-4


def test_the_last_distance_stands_for_all_beyond() -> None:
    table = exp_table(3000)
    far = row_probabilities(np.array([[255, 0, -1, -255]], np.int32), 3000)[0]
    assert far[1] == far[2] == far[3] > 0
    assert far[0] / far[1] == pytest.approx(table[0] / table[255], rel=0.05)


def test_importance_adds_the_rows_of_all_heads() -> None:
    rng = np.random.default_rng(1)
    heads = [rng.integers(-127, 128, (3, 40)).astype(np.int32) for _ in range(2)]
    votes = importance(heads, [900, 2000])
    want = row_probabilities(heads[0], 900).sum(0) + row_probabilities(heads[1], 2000).sum(0)
    np.testing.assert_array_equal(votes, want)


def test_the_most_rows_and_keys_there_may_be_still_fit() -> None:
    # all on one key: the largest importance
    alone = row_probabilities(np.array([[127, -127]], np.int32), MAX_STEP)[0, 0]
    assert int(alone) * MAX_SHARING_ROWS < 2**31
    # all alike: the largest sum of weights, the smallest probabilities
    assert MAX_POOLED_KEYS * MAX_WEIGHT < 2**32
    alike = row_probabilities(np.zeros((1, MAX_POOLED_KEYS - 1), np.int32), 1)
    assert (alike == alike[0, 0]).all()
    assert 0 <= ROW_SUM // MAX_POOLED_KEYS - alike[0, 0] <= 1


@pytest.mark.parametrize("head_dim", [64, 80])
@pytest.mark.parametrize("centered", [False, True], ids=["plain", "centred"])
@pytest.mark.parametrize("rotated", [False, True], ids=["unrotated", "rotated"])
def test_votes_are_the_softmax_of_real_scores(rotated: bool, centered: bool, head_dim: int) -> None:
    """Whatever the pilot does to queries and keys, a list is close to that of exact
    probabilities: a vote that is too sharp or too flat finds other keys."""
    geometry = AttentionSpec(4, 2, head_dim, head_dim**-0.5)
    rng = np.random.default_rng(head_dim)
    q = rng.standard_normal((16, 4, head_dim), dtype=np.float32)
    k = 1.5 * rng.standard_normal((300, 2, head_dim), dtype=np.float32) + np.float32(0.5)
    means = k.mean(axis=0) if centered else np.zeros_like(k[0])
    seen = [x.transpose(1, 0, 2) for x in (q, k - means)]
    if rotated:
        seen = [hadamard(x) for x in seen]
    scales = [np.abs(x).max(axis=(1, 2)) / 127 for x in seen]
    heads = []
    for head in range(4):
        kv_head = head // 2
        scores = seen[0][head] @ seen[1][kv_head].T
        q_scale, k_scale = scales[0][head], scales[1][kv_head]
        factor = 127 * q_scale * k_scale / np.abs(scores).max()
        heads.append(
            HeadParameters(float(q_scale), float(k_scale), RATIO_ONE // 10, ((float(factor),),))
        )
    spec = ShadowSpec(
        geometry,
        (tuple(heads),),
        bucket_sigma=0.5,
        k_min=1,
        buckets_per_axis=1,
        pilot=PilotSpec(hadamard_rotation=rotated, score_bits=8, share_group=True, query_block=16),
        key_means=(tuple(tuple(map(float, m)) for m in means),) if centered else None,
    )
    lists = select(spec, 0, q, k)
    for kv_head in range(2):
        scores = np.einsum("ihd,jd->hij", q[:, 2 * kv_head : 2 * kv_head + 2], k[:, kv_head])
        weights = np.exp(scores * geometry.sm_scale)
        votes = (weights / weights.sum(axis=2, keepdims=True)).sum(axis=(0, 1))
        found = lists[2 * kv_head][0]
        exact = np.argsort(-votes)[: len(found)]
        assert len(found) == 30
        assert len(np.intersect1d(found, exact)) >= 28
