"""Recall of a plan's pilot, measured inside a dense prefill.

The pilot's lists, from the plan's own kernels, are held against those of exact scores of the same
queries and keys, which are the dense model's.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from tir_kernels.spec import ShadowSpec, keep_count

from .attention import Floats
from .float_lists import head_scores, hits, largest, pooled_scores
from .kernel_lists import KernelLists


class PilotRecall:
    """Sums up the recall of every sparse head, chunk by chunk.

    Parameters
    ----------
    spec : the plan's parameters.
    rows : query rows looked at in each head and chunk, evenly spaced; with pooling, whole lists of
        about as many rows, at least one.

    Attributes
    ----------
    recall_sum : `[layers, heads]` float64, sum of the recalls of the lists looked at.
    num_lists : `[layers, heads]` int64, how many those are; 0 in dense heads.
    """

    def __init__(self, spec: ShadowSpec, rows: int) -> None:
        shape = (spec.num_layers, spec.attention.num_q_heads)
        self.recall_sum: NDArray[np.float64] = np.zeros(shape)
        self.num_lists: NDArray[np.int64] = np.zeros(shape, np.int64)
        self._spec = spec
        self._rows = rows
        self._kernel_lists = KernelLists(spec)

    def observe(self, layer: int, q: Floats, k: Floats, _v: Floats) -> None:
        """One chunk of a layer: `q` (m, Hq, D), its past's `k` (n, Hkv, D)."""
        keeps = [self._keep(layer, head, len(k)) for head in range(q.shape[1])]
        sparse = [head for head, keep in enumerate(keeps) if keep < len(k)]
        if not sparse:
            return
        if not self._spec.pilot.pooled:  # other rows have no say in a row's list
            q = q[evenly_spaced(len(q), self._rows)]
        lists = self._kernel_lists(layer, q, k)
        for head in sparse:
            for recall in self._recalls(head, q, k, lists[:, head, : keeps[head]]):
                self.recall_sum[layer, head] += recall
                self.num_lists[layer, head] += 1

    def _recalls(
        self, head: int, q: Floats, k: Floats, lists: NDArray[np.int32]
    ) -> Iterator[float]:
        """The recall of each list looked at, of rows `q` (m, Hq, D) with `lists` (m, keep)."""
        attention, pilot = self._spec.attention, self._spec.pilot
        keep = lists.shape[1]
        if not pilot.pooled:
            exact = largest(head_scores(attention, head, q, k), keep)
            yield from hits(exact, lists).tolist()
            return
        unit = attention.group_size if pilot.share_group else 1
        heads = range(head // unit * unit, head // unit * unit + unit)
        block = pilot.query_block
        for number in evenly_spaced(-(-len(q) // block), max(1, self._rows // block)):
            members = slice(number * block, (number + 1) * block)
            exact = largest(pooled_scores(attention, heads, q[members], k)[None], keep)
            yield float(hits(exact, lists[members.start][None])[0])

    def _keep(self, layer: int, head: int, num_keys: int) -> int:
        return keep_count(num_keys, self._spec.heads[layer][head].keep_ratio_q16, self._spec.k_min)


def evenly_spaced(count: int, wanted: int) -> NDArray[np.int64]:
    """Up to `wanted` of the indices 0..count-1, in the middle of equal parts."""
    parts = min(count, wanted)
    return (2 * np.arange(parts) + 1) * count // (2 * parts)
