"""C/G-Block-Sparse: mean-pooled blocks of 64 x 64 choose the tokens (paper, baselines)."""

from __future__ import annotations

import numpy as np

from tir_kernels.reference.selective_prefill import BLOCK_MEANS

from ..attention import Floats
from .attend import Mask, top_k_mask
from .selective import SelectiveAttention


class BlockSparse(SelectiveAttention):
    """Each block of queries keeps the key blocks with the largest product of the two means.

    The budget is the plan's to the key: blocks are taken by falling score, ties to the lower index,
    and of the block that no longer fits in whole the first keys are taken. In other words every key
    has its block's score, and the ordinary selection does the rest.
    """

    def select(self, layer: int, head: int, q: Floats, k: Floats, keep: int) -> Mask:
        """One row of keys for each block of queries, repeated for its queries."""
        del layer, head
        chosen = top_k_mask(BLOCK_MEANS.scores(q, k), keep)
        return np.repeat(chosen, BLOCK_MEANS.block_queries, axis=0)[: len(q)]
