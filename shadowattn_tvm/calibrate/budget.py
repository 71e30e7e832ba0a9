"""The budget in pairs: how many (query, older key) pairs a head computes at a keep ratio."""

from __future__ import annotations

from dataclasses import dataclass

from tir_kernels.constants import RATIO_ONE
from tir_kernels.spec import keep_count


@dataclass(frozen=True)
class PairBudget:
    """Pairs of one head over one window, counted exactly as the kernels keep them.

    Attributes
    ----------
    window_tokens, prefill_chunk_tokens : a window and the chunks it is prefilled in.
    k_min : the fewest past positions a sparse head keeps.
    """

    window_tokens: int
    prefill_chunk_tokens: int
    k_min: int

    def chunks(self) -> list[tuple[int, int]]:
        """(older keys, queries) of each chunk that has a past."""
        step = self.prefill_chunk_tokens
        starts = range(step, self.window_tokens, step)
        return [(start, min(step, self.window_tokens - start)) for start in starts]

    @property
    def total(self) -> int:
        """All pairs of a query with a key older than its chunk."""
        return sum(past * queries for past, queries in self.chunks())

    def kept(self, ratio_q16: int) -> int:
        """Pairs computed at a keep ratio in units of 1/65536. A chunk of a single token takes the
        decode path, which is dense."""
        return sum(
            queries * (past if queries == 1 else keep_count(past, ratio_q16, self.k_min))
            for past, queries in self.chunks()
        )

    def ratio_for(self, pairs: int) -> int:
        """The largest keep ratio, in units of 1/65536, that computes no more than `pairs`; 0 where
        k_min alone computes more."""
        low, high = 0, RATIO_ONE
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if self.kept(middle) <= pairs else (low, middle - 1)
        return low
