"""The exact attention and the selection that all baselines are made of."""

from __future__ import annotations

import numpy as np
import pytest

from shadowattn_tvm.evaluate.baselines.attend import attend_head, causal_mask, top_k_mask
from tests.evaluate.baselines import definitions
from tir_kernels.constants import EMPTY_LSE


@pytest.mark.parametrize("keep", [0, 1, 7, 39, 40])
@pytest.mark.parametrize("levels", [2, 5, 1000])
def test_top_k_keeps_the_largest_and_of_equals_the_first(keep: int, levels: int) -> None:
    scores = np.random.default_rng(keep).integers(0, levels, (13, 40)).astype(np.float32)
    expected = np.zeros(scores.shape, np.bool_)
    for row, chosen in zip(scores, expected, strict=True):
        chosen[definitions.best(row, keep)] = True
    np.testing.assert_array_equal(top_k_mask(scores, keep), expected)


def test_causal_mask_is_aligned_with_the_last_key() -> None:
    expected = [[True, True, False], [True, True, True]]
    np.testing.assert_array_equal(causal_mask(2, 3), expected)


def test_each_query_attends_to_what_it_sees() -> None:
    rng = np.random.default_rng(0)
    q, k, v = (rng.normal(size=(rows, 16)).astype(np.float32) for rows in (6, 9, 9))
    visible = rng.random((6, 9)) < 0.5
    visible[2] = False
    output, lse = attend_head(q, k, v, visible, 0.25)
    for i in range(6):
        expected = definitions.attend(q[i], k[visible[i]], v[visible[i]], 0.25)
        np.testing.assert_allclose(output[i], expected[0], atol=1e-6)
        np.testing.assert_allclose(lse[i], expected[1], atol=1e-5)
    assert lse[2] == EMPTY_LSE
    assert output.dtype == lse.dtype == np.float32


def test_large_scores_do_not_overflow() -> None:
    q = np.full((1, 16), 1e3, np.float32)
    output, lse = attend_head(q, q, np.ones_like(q), None, 0.25)
    np.testing.assert_array_equal(output, np.ones_like(q))
    np.testing.assert_allclose(lse, [4e6 * np.log2(np.e)], rtol=1e-6)
