"""NumPy twins of the sparse baselines: other scores, the same budget, attention in float64.

Contents
- `Scoring`, `EXACT`, `BLOCK_MEANS`: what keys are chosen by, in float32 or float64.
- `selective_paged_prefill`: the twin of the kernels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..constants import MEAN_BLOCK_TOKENS
from ..spec import ShadowSpec, keep_count
from .attention import paged_prefill, sequence_pages
from .sparse_attention import sparse_attention
from .top_k import top_k

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.integer]
Doubles = npt.NDArray[np.float64]
Bools = npt.NDArray[np.bool_]

_ROUNDING = 1e-5
"""How far float32 may be off, as a part of a row's largest score; in practice ten times less."""


@dataclass(frozen=True)
class Scoring:
    """What keys are chosen by.

    Attributes
    ----------
    scores : queries (m, D) and keys (n, D) of one head -> scores (ceil(m / block_queries), n), in
        their dtype; the largest of a row are kept, ties to the lower index.
    block_queries : consecutive queries that share a row of scores, counted from the first.
    """

    scores: Callable[[Floats, Floats], Floats]
    block_queries: int = 1


def _products(q: Floats, k: Floats) -> Floats:
    scores: Floats = q @ k.T
    return scores


def _block_products(q: Floats, k: Floats) -> Floats:
    """Every key has its block's score."""
    scores = _block_means(q) @ _block_means(k).T
    return np.repeat(scores, MEAN_BLOCK_TOKENS, axis=1)[:, : len(k)]


def _block_means(x: Floats) -> Floats:
    """Means of consecutive blocks of rows of `x` (rows, D); the last block may be short."""
    starts = np.arange(0, len(x), MEAN_BLOCK_TOKENS)
    sizes = np.diff(np.append(starts, len(x))).astype(np.float32)
    sums: Floats = np.add.reduceat(x, starts, axis=0)
    return sums / sizes[:, None]


EXACT = Scoring(_products)
"""C/G-Sparse: q.k."""

BLOCK_MEANS = Scoring(_block_products, MEAN_BLOCK_TOKENS)
"""C/G-Block-Sparse: the product of the means of both blocks."""


def selective_paged_prefill(
    spec: ShadowSpec,
    scoring: Scoring,
    layer: int,
    q: Floats,
    q_indptr: Ints,
    pages: Floats,
    page_indptr: Ints,
    page_values: Ints,
    last_page_len: Ints,
    causal: bool,
) -> tuple[Doubles, Doubles, Bools]:
    """Output (tokens, Hq, D), lse (tokens, Hq), NaN in rows outside `q_indptr`, and `decided`
    (tokens, Hq): false where the selection hangs on rounding, so that a kernel which scores in
    float32 may choose another key of as good as the same score."""
    geometry = spec.attention
    decided = np.ones(q.shape[:2], np.bool_)
    if causal:
        dense = paged_prefill(
            geometry, q, q_indptr, pages, page_indptr, page_values, last_page_len, causal
        )
        return *dense, decided
    output, lse = np.full(q.shape, np.nan), np.full(q.shape[:2], np.nan)
    for b in range(len(q_indptr) - 1):
        rows = slice(q_indptr[b], q_indptr[b + 1])
        page_ids = page_values[page_indptr[b] : page_indptr[b + 1]]
        k, v = sequence_pages(geometry, pages, page_ids, int(last_page_len[b]))
        if rows.start == rows.stop:
            continue
        for head in range(geometry.num_q_heads):
            keys, values = (x[:, head // geometry.group_size] for x in (k, v))
            keep = keep_count(len(k), spec.heads[layer][head].keep_ratio_q16, spec.k_min)
            lists, decided[rows, head] = _lists(scoring, q[rows, head], keys, keep)
            output[rows, head], lse[rows, head] = sparse_attention(
                q[rows, head], keys, values, lists, geometry.sm_scale
            )
    return output, lse, decided


def _lists(
    scoring: Scoring, q: Floats, k: Floats, keep: int
) -> tuple[list[npt.NDArray[np.int32]], Bools]:
    """The ascending list of each query, and whether rounding couldn't change it."""
    everything = np.ones(len(k), np.bool_)
    if keep == len(k):
        return [np.arange(keep, dtype=np.int32)] * len(q), np.ones(len(q), np.bool_)
    scores = scoring.scores(q.astype(np.float64), k.astype(np.float64))
    lists, decided = [], []
    for row in scores:
        chosen = top_k(row, everything, keep)
        distances = np.abs(row - row[chosen].min())
        # what is equal is so in float32 too: equal keys, or small integers
        close = (distances > 0) & (distances < _ROUNDING * np.abs(row).max())
        lists.append(chosen)
        decided.append(not close.any())
    owners = np.arange(len(q)) // scoring.block_queries
    return [lists[owner] for owner in owners], np.array(decided)[owners]
