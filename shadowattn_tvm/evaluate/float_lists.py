"""The lists that exact scores would give: what the pilot's are held against.

For a plan without sharing, each row's k largest q.k. For a pooled plan, the same pooling of exact
probabilities: softmax over the past, summed over the rows of a list, the k largest sums. Float64;
ties go to the lower index.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from tir_kernels.spec import AttentionSpec

from .attention import Floats

Doubles = NDArray[np.float64]
Indices = NDArray[np.integer]


def head_scores(attention: AttentionSpec, head: int, q: Floats, k: Floats) -> Doubles:
    """Scores (m, n) of one head: `q` (m, Hq, D), `k` (n, Hkv, D); times the softmax scale."""
    keys = k[:, head // attention.group_size].astype(np.float64)
    # Not by BLAS: its threads would wait actively on the cores that the model's kernels run on.
    scores: Doubles = np.einsum("id,jd->ij", q[:, head].astype(np.float64), keys)
    return scores * attention.sm_scale


def pooled_scores(attention: AttentionSpec, heads: range, q: Floats, k: Floats) -> Doubles:
    """Importance (n,) of every key to a list: probabilities summed over the rows `q` (m, Hq, D) of
    `heads`."""
    importance = np.zeros(len(k))
    for head in heads:
        scores = head_scores(attention, head, q, k)
        weights = np.exp(scores - scores.max(axis=1, keepdims=True))
        importance += (weights / weights.sum(axis=1, keepdims=True)).sum(axis=0)
    return importance


def largest(scores: Doubles, count: int) -> NDArray[np.bool_]:
    """Mark the `count` largest of each row of `scores` (m, n), ties to the lower index."""
    marked = np.zeros(scores.shape, np.bool_)
    # A partition finds the threshold; only what equals it has to be ordered.
    threshold = np.partition(scores, -count, axis=1)[:, -count, None]
    marked[scores > threshold] = True
    ties = scores == threshold
    missing = count - marked.sum(axis=1, keepdims=True)
    marked |= ties & (np.cumsum(ties, axis=1) <= missing)
    return marked


def hits(marked: NDArray[np.bool_], lists: Indices) -> NDArray[np.float64]:
    """The part of each row of `lists` (m, k) that is marked in that row of `marked` (m, n)."""
    part: Doubles = np.take_along_axis(marked, lists.astype(np.int64), axis=1).mean(axis=1)
    return part
