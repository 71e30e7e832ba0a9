"""The honest count of what a prefill computed exactly: (query, key) pairs, in integers.

The past fraction is the paper's budget: the part of all pairs between a query and an older key
outside its chunk that was computed exactly, over all layers and heads. The total fraction counts
every causal pair, the dense triangle inside each chunk included. Decode is dense and not counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tir_kernels.constants import RATIO_ONE
from tir_kernels.spec import keep_count


@dataclass(frozen=True)
class PairCounts:
    """Pairs summed over layers and heads; counts of several prefills add up.

    Attributes
    ----------
    past_kept, past_total : pairs of a query with a key older than its chunk: computed exactly,
        and all there are.
    chunk_total : causal pairs inside the chunks; all of them are computed.
    """

    past_kept: int = 0
    past_total: int = 0
    chunk_total: int = 0

    def __add__(self, other: PairCounts) -> PairCounts:
        return PairCounts(
            self.past_kept + other.past_kept,
            self.past_total + other.past_total,
            self.chunk_total + other.chunk_total,
        )

    def __sub__(self, other: PairCounts) -> PairCounts:
        return PairCounts(
            self.past_kept - other.past_kept,
            self.past_total - other.past_total,
            self.chunk_total - other.chunk_total,
        )

    @property
    def past_fraction(self) -> float:
        """Kept part of the past, 0..1; 1.0 where there was no past: nothing was left out."""
        return self.past_kept / self.past_total if self.past_total else 1.0

    @property
    def total_fraction(self) -> float:
        """Kept part of all causal pairs, 0..1; 1.0 where nothing was prefilled."""
        total = self.past_total + self.chunk_total
        return (self.past_kept + self.chunk_total) / total if total else 1.0


class PairCounter:
    """Counts the pairs of one prefill chunk for one plan.

    Parameters
    ----------
    keep_ratio_q16 : `[layer][head]`, in units of 1/65536; None for a dense library. The number of
        heads cancels in the fractions, so a dense library is counted as one dense head.
    k_min : the fewest past positions a sparse head keeps.
    """

    def __init__(self, keep_ratio_q16: Sequence[Sequence[int]] | None, k_min: int) -> None:
        ratios = [r for layer in keep_ratio_q16 for r in layer] if keep_ratio_q16 else [RATIO_ONE]
        self._heads_by_ratio = Counter(ratios)
        self._num_heads = len(ratios)
        self._k_min = k_min

    def chunk(self, num_past: int, num_new: int) -> PairCounts:
        """Pairs of `num_new` tokens prefilled after `num_past` older ones.

        A chunk of one token takes the runtime's decode path, which is dense.
        """
        if num_new == 1:
            kept = self._num_heads * num_past
        else:
            kept = sum(
                heads * keep_count(num_past, ratio, self._k_min)
                for ratio, heads in self._heads_by_ratio.items()
            )
        return PairCounts(
            past_kept=kept * num_new,
            past_total=self._num_heads * num_past * num_new,
            chunk_total=self._num_heads * num_new * (num_new + 1) // 2,
        )
