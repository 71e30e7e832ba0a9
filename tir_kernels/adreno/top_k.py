"""Top-k on Adreno: a work-group finds a row's k-th largest score by bisection, then the list.

Selection is the contract's: the k largest, ties to the lower index, ascending.
"""

from __future__ import annotations

from tvm.script import tirx as T

from .vector import Expr, barrier

ITEMS = 128
"""Work-items of the group."""


@T.meta_class
class TopK:
    """Made inside a kernel, by every work-item; `item` is its number in a group of `ITEMS`. All
    calls are made by all work-items of the group.

    `score_min` and `score_max` bound the scores; they decide how often the row is counted.
    """

    def __init__(self, item: Expr, score_min: int, score_max: int) -> None:
        self.item = item
        self.score_min = score_min
        self.score_max = score_max
        self.counts = T.alloc_buffer((ITEMS,), "int32", scope="shared")
        self.ties = T.alloc_buffer((ITEMS,), "int32", scope="shared")
        self.low = T.alloc_buffer((1,), "int32", scope="local")
        self.high = T.alloc_buffer((1,), "int32", scope="local")
        self.middle = T.alloc_buffer((1,), "int32", scope="local")
        self.count = T.alloc_buffer((1,), "int32", scope="local")
        self.tied = T.alloc_buffer((1,), "int32", scope="local")
        self.place = T.alloc_buffer((1,), "int32", scope="local")

    @T.inline
    def select(
        self, scores: T.Buffer, row: Expr, n: Expr, k: Expr, lists: T.Buffer, out_row: Expr
    ) -> None:
        """`lists[out_row, : k]` = the selection of `scores[row, : n]`; k <= n, nothing if n = 0."""
        self.search(scores, row, n, k)
        self.write(scores, row, n, k, lists, out_row)

    @T.inline
    def search(self, scores: T.Buffer, row: Expr, n: Expr, k: Expr) -> None:
        """`low` = the k-th largest score: the largest that at least k reach."""
        self.low[0] = self.score_min
        self.high[0] = self.score_max + 1
        for _ in range((self.score_max - self.score_min + 1).bit_length()):
            self.middle[0] = self.low[0] + T.shift_right(self.high[0] - self.low[0], 1)
            self.count[0] = 0
            for step in range(T.ceildiv(n, ITEMS)):
                key = T.meta_var(step * ITEMS + self.item)
                if key < n:
                    self.count[0] = self.count[0] + T.Select(
                        T.Cast("int32", scores[row, key]) >= self.middle[0], 1, 0
                    )
            self.counts[self.item] = self.count[0]
            barrier()
            self.count[0] = 0
            for i in range(ITEMS):
                self.count[0] = self.count[0] + self.counts[i]
            barrier()
            if self.count[0] >= k:
                self.low[0] = self.middle[0]
            else:
                self.high[0] = self.middle[0]

    @T.inline
    def write(
        self, scores: T.Buffer, row: Expr, n: Expr, k: Expr, lists: T.Buffer, out_row: Expr
    ) -> None:
        """Every work-item writes what is selected in its own stretch of the row."""
        share = T.bind(T.ceildiv(n, ITEMS))
        first = T.bind(T.min(self.item * share, n))
        num = T.bind(T.min(share, n - first))
        # 1. What lies above the threshold and on it, in each stretch
        self.count[0] = 0
        self.tied[0] = 0
        for i in range(num):
            self.middle[0] = T.Cast("int32", scores[row, first + i])
            self.count[0] = self.count[0] + T.Select(self.middle[0] > self.low[0], 1, 0)
            self.tied[0] = self.tied[0] + T.Select(self.middle[0] == self.low[0], 1, 0)
        self.counts[self.item] = self.count[0]
        self.ties[self.item] = self.tied[0]
        barrier()
        # 2. How many ties are wanted, and what lies before this stretch
        self.high[0] = k
        self.count[0] = 0
        self.tied[0] = 0
        for i in range(ITEMS):
            self.high[0] = self.high[0] - self.counts[i]
            self.count[0] = self.count[0] + T.Select(i < self.item, self.counts[i], 0)
            self.tied[0] = self.tied[0] + T.Select(i < self.item, self.ties[i], 0)
        self.place[0] = self.count[0] + T.min(self.tied[0], self.high[0])
        # 3. The list
        for i in range(num):
            self.middle[0] = T.Cast("int32", scores[row, first + i])
            if T.Or(
                self.middle[0] > self.low[0],
                T.And(self.middle[0] == self.low[0], self.tied[0] < self.high[0]),
            ):
                lists[out_row, self.place[0]] = first + i
                self.place[0] = self.place[0] + 1
            self.tied[0] = self.tied[0] + T.Select(self.middle[0] == self.low[0], 1, 0)
