"""The exact lists, against sorting and the softmax."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from shadowattn_tvm.evaluate.float_lists import head_scores, hits, largest, pooled_scores
from tir_kernels.spec import AttentionSpec

GEOMETRY = AttentionSpec(num_q_heads=4, num_kv_heads=2, head_dim=16, sm_scale=0.25)


@given(
    scores=arrays(np.float64, (3, 17), elements=st.integers(-4, 4).map(float)),
    count=st.integers(1, 17),
)
def test_the_largest_and_of_equals_the_first(scores: np.ndarray, count: int) -> None:
    marked = largest(scores, count)
    for row, marks in zip(scores, marked, strict=True):
        expected = np.argsort(-row, kind="stable")[:count]
        assert set(np.flatnonzero(marks)) == set(expected)


def test_scores_are_of_the_heads_own_keys() -> None:
    rng = np.random.default_rng(0)
    q = rng.standard_normal((3, 4, 16)).astype(np.float32)
    k = rng.standard_normal((7, 2, 16)).astype(np.float32)
    got = head_scores(GEOMETRY, 2, q, k)
    for i in range(3):
        for j in range(7):
            assert got[i, j] == pytest.approx(0.25 * float(q[i, 2] @ k[j, 1]), abs=1e-5)


def test_pooling_adds_probabilities_not_scores() -> None:
    # One row is certain of key 0 by a large score; two rows prefer key 1, each with a small one.
    q = np.zeros((3, 4, 16), np.float32)
    k = np.zeros((2, 2, 16), np.float32)
    k[0, 0, 0] = k[1, 0, 1] = 1.0
    q[0, 0, 0] = 400.0
    q[1:, 0, 1] = 16.0
    importance = pooled_scores(GEOMETRY, range(1), q, k)
    p = 1 / (1 + np.exp(-4.0))
    np.testing.assert_allclose(importance, [1 + 2 * (1 - p), 2 * p])
    assert importance[1] > importance[0]
    assert head_scores(GEOMETRY, 0, q, k).sum(axis=0).argmax() == 0


def test_hits_by_hand() -> None:
    marked = np.array([[True, True, False, False], [False, False, True, True]])
    np.testing.assert_allclose(hits(marked, np.array([[0, 2], [2, 3]])), [0.5, 1.0])
