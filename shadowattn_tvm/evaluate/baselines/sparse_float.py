"""C/G-Sparse: the same sparsity, its estimate in float (paper, baselines)."""

from __future__ import annotations

from tir_kernels.reference.selective_prefill import EXACT

from ..attention import Floats
from .attend import Mask, top_k_mask
from .selective import SelectiveAttention


class SparseFloat(SelectiveAttention):
    """Each query keeps the keys of its largest exact scores: what a perfect pilot would select."""

    def select(self, layer: int, head: int, q: Floats, k: Floats, keep: int) -> Mask:
        """The `keep` largest q.k of each query."""
        del layer, head
        return top_k_mask(EXACT.scores(q, k), keep)
