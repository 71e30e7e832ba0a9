"""Exact softmax attention of one head in float32, and the selection of its keys by score."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tir_kernels.constants import EMPTY_LSE, LOG2_E

from ..attention import AttentionState, Floats

Mask = NDArray[np.bool_]
"""(m, n): which keys each query sees."""


def attend_head(
    q: Floats, k: Floats, v: Floats, visible: Mask | None, sm_scale: float
) -> AttentionState:
    """One head: `q` (m, D), `k`, `v` (n, D), all float32 -> output (m, D), base-2 lse (m,).

    `visible` None = every query sees every key. Zeros and EMPTY_LSE where a query sees none.
    """
    scores = (q @ k.T) * np.float32(sm_scale)
    if visible is not None:
        scores[~visible] = -np.inf
    largest = scores.max(axis=1, initial=-np.inf)
    empty = np.isneginf(largest)
    largest[empty] = 0.0
    scores -= largest[:, None]
    weights = np.exp(scores, out=scores)
    total = weights.sum(axis=1)
    total[empty] = 1.0
    output = (weights @ v) / total[:, None]
    lse = (largest + np.log(total)) * np.float32(LOG2_E)
    return output, np.where(empty, np.float32(EMPTY_LSE), lse)


def causal_mask(num_queries: int, num_keys: int) -> Mask:
    """(m, n): query i sees the keys up to number n - m + i, so that the last sees all."""
    limits = num_keys - num_queries + np.arange(num_queries)
    return np.asarray(np.arange(num_keys) <= limits[:, None])


def top_k_mask(scores: Floats, keep: int) -> Mask:
    """The `keep` largest of each row of `scores` (rows, n), ties to the lower index; `keep` from 0
    to n."""
    rows, num_keys = scores.shape
    if keep == 0:
        return np.zeros((rows, num_keys), np.bool_)
    if keep == num_keys:
        return np.ones((rows, num_keys), np.bool_)
    smallest_kept = np.partition(scores, num_keys - keep, axis=1)[:, num_keys - keep, None]
    selected = scores > smallest_kept
    tied = scores == smallest_kept
    vacant = keep - selected.sum(axis=1)
    contested = tied.sum(axis=1) > vacant
    # Only rows with more ties than room need the running count; with float scores there are few.
    tied[contested] &= np.cumsum(tied[contested], axis=1, dtype=np.int32) <= vacant[contested, None]
    return np.asarray(selected | tied)
