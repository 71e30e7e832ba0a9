"""C/G-Block-Sparse: mean-pooled blocks of 64 x 64 choose the tokens (paper, baselines)."""

from __future__ import annotations

import numpy as np

from ..attention import Floats
from .attend import Mask, top_k_mask
from .selective import SelectiveAttention

BLOCK_TOKENS = 64
"""Of queries, counted from the chunk's first, and of keys, counted from the sequence's first."""


class BlockSparse(SelectiveAttention):
    """Each block of queries keeps the key blocks with the largest product of the two means.

    The budget is the plan's to the key: blocks are taken by falling score, ties to the lower index,
    and of the block that no longer fits in whole the first keys are taken. In other words every key
    has its block's score, and the ordinary selection does the rest.
    """

    def select(self, layer: int, head: int, q: Floats, k: Floats, keep: int) -> Mask:
        """One row of keys for each block of queries, repeated for its queries."""
        del layer, head
        block_scores = _block_means(q) @ _block_means(k).T
        key_scores = np.repeat(block_scores, BLOCK_TOKENS, axis=1)[:, : len(k)]
        return np.repeat(top_k_mask(key_scores, keep), BLOCK_TOKENS, axis=0)[: len(q)]


def _block_means(x: Floats) -> Floats:
    """Means of consecutive blocks of rows of `x` (rows, D); the last block may be short."""
    starts = np.arange(0, len(x), BLOCK_TOKENS)
    sizes = np.diff(np.append(starts, len(x))).astype(np.float32)
    sums: Floats = np.add.reduceat(x, starts, axis=0)
    return sums / sizes[:, None]
