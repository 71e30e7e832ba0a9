"""One query against its own list of keys: a work-group with a token to each work-item.

Gathered rows are read where they lie: no two queries share them, so there is nothing to stage.
"""

from __future__ import annotations

from collections.abc import Callable

from tvm.script import tirx as T

from ..constants import EMPTY_LSE, LOG2_E
from ..head_rest import HeadRest
from ..spec import AttentionSpec
from .limits import VECTOR, check_limits, local_bytes
from .vector import LOWEST, Expr, barrier, floats, part, splat, zeros

_WORK_ITEMS = 128
"""One or two waves of an Adreno; the tile of a list, too."""


def row_splits(spec: AttentionSpec) -> int:
    """Parts of a tile's values that are added up at the same time."""
    return max(1, _WORK_ITEMS // (spec.head_dim // VECTOR))


def row_work_items(spec: AttentionSpec) -> int:
    """Work-items of the group: a whole number of them for each split.

    Raises `SpecError` if an Adreno has no room for so many, or for what they share.
    """
    items = row_splits(spec) * (spec.head_dim // VECTOR)
    check_limits("row", items, local_bytes([(s, 4) for s in _local_shapes(spec, items).values()]))
    return items


def _local_shapes(spec: AttentionSpec, items: int) -> dict[str, tuple[int, ...]]:
    """Of the buffers in local memory; all have elements of 4 bytes."""
    return {
        "query": (spec.head_dim,),
        "rows": (items,),
        "scores": (items,),
        "sums": (row_splits(spec), spec.head_dim),
        "weights": (row_splits(spec),),
    }


@T.meta_class
class RowGroup:
    """Made inside a kernel, by every work-item; `item` is its number in a group of
    `row_work_items`. All calls are made by all work-items of the group.

    Scores take one token a work-item, values one vector of a row: a split of the tile's tokens for
    each `head_dim / 4` work-items. Softmax online, in base 2, so local memory is that of one tile.
    """

    def __init__(self, spec: AttentionSpec, item: Expr) -> None:
        self.spec = spec
        self.item = item
        self.parts = spec.head_dim // VECTOR
        self.splits = row_splits(spec)
        self.items = row_work_items(spec)
        shapes = _local_shapes(spec, self.items)
        self.query = T.alloc_buffer(shapes["query"], "float32", scope="shared")
        self.rows = T.alloc_buffer(shapes["rows"], "int32", scope="shared")
        self.scores = T.alloc_buffer(shapes["scores"], "float32", scope="shared")
        self.sums = T.alloc_buffer(shapes["sums"], "float32", scope="shared")
        self.weights = T.alloc_buffer(shapes["weights"], "float32", scope="shared")
        self.row = T.alloc_buffer((1,), "int32", scope="local")
        self.score = T.alloc_buffer((1,), "float32", scope="local")
        self.best = T.alloc_buffer((1,), "float32", scope="local")
        self.before = T.alloc_buffer((1,), "float32", scope="local")
        self.weight = T.alloc_buffer((1,), "float32", scope="local")
        self.total = T.alloc_buffer((1,), "float32", scope="local")
        self.dot = T.alloc_buffer((VECTOR,), "float32", scope="local")
        self.value = T.alloc_buffer((VECTOR,), "float32", scope="local")

    @T.inline
    def start(self, q_rows: T.Buffer, row: Expr) -> None:
        """Load the query, in units of base-2 exponents."""
        if self.item < self.parts:
            self.query[part(self.item)] = floats(q_rows[row, part(self.item)]) * splat(
                T.float32(self.spec.sm_scale * LOG2_E)
            )
        self.best[0] = T.float32(LOWEST)
        self.total[0] = T.float32(0)
        self.value[part(0)] = zeros()

    @T.inline
    def begin_with(self, rest: HeadRest) -> None:
        """Right after `start`: the softmax's state after the rest, before any token. Its value is
        the first split's."""
        barrier()  # the query is written
        if rest.left_out > 0:
            self.dot[part(0)] = zeros()
            for c in range(self.parts):
                self.dot[part(0)] = (
                    self.dot[part(0)] + self.query[part(c)] * rest.means[rest.key, part(c)]
                )
            self.best[0] = ((self.dot[0] + self.dot[1]) + (self.dot[2] + self.dot[3])) + T.log2(
                T.Cast("float32", rest.left_out)
            )
            if self.item < self.parts:
                self.total[0] = T.float32(1)
                self.value[part(0)] = rest.means[rest.value, part(self.item)]

    @T.inline
    def attend(
        self,
        k_rows: T.Buffer,
        v_rows: T.Buffer,
        value_offset: int,
        count: Expr,
        row_of: Callable[[Expr], Expr],
    ) -> None:
        """Over `count` tokens: the i-th has K in `k_rows[row_of(i)]`, V in
        `v_rows[row_of(i) + value_offset]`; both (any, D)."""
        for tile in range(T.ceildiv(count, self.items)):
            first = T.meta_var(tile * self.items)
            self.row[0] = -1
            if first + self.item < count:
                self.row[0] = row_of(first + self.item)
            barrier()  # the tile before has been read
            self.score_row(k_rows)
            self.rows[self.item] = self.row[0]
            self.scores[self.item] = self.score[0]
            barrier()
            self.raise_best()
            self.add_values(v_rows, value_offset, T.min(self.items, count - first))

    @T.inline
    def score_row(self, k_rows: T.Buffer) -> None:
        """`score` = the query times the work-item's own key, or the lowest score."""
        self.score[0] = T.float32(LOWEST)
        if self.row[0] >= 0:
            self.dot[part(0)] = zeros()
            for c in range(self.parts):
                self.dot[part(0)] = self.dot[part(0)] + self.query[part(c)] * floats(
                    k_rows[self.row[0], part(c)]
                )
            self.score[0] = (self.dot[0] + self.dot[1]) + (self.dot[2] + self.dot[3])

    @T.inline
    def raise_best(self) -> None:
        """Take the tile's largest score into `best`, and what was added up into its scale."""
        self.before[0] = self.best[0]
        self.dot[part(0)] = splat(self.best[0])
        for i in range(self.items // VECTOR):
            self.dot[part(0)] = T.max(self.dot[part(0)], self.scores[part(i)])
        self.best[0] = T.max(T.max(self.dot[0], self.dot[1]), T.max(self.dot[2], self.dot[3]))
        self.weight[0] = T.exp2(self.before[0] - self.best[0])
        self.total[0] = self.total[0] * self.weight[0]
        self.value[part(0)] = self.value[part(0)] * splat(self.weight[0])

    @T.inline
    def add_values(self, v_rows: T.Buffer, value_offset: int, tokens: Expr) -> None:
        """The tile's tokens of this work-item's split."""
        for step in range(self.items // self.splits):
            token = T.meta_var(step * self.splits + self.item // self.parts)
            if token < tokens:
                self.weight[0] = T.exp2(self.scores[token] - self.best[0])
                self.row[0] = self.rows[token] + value_offset
                self.total[0] = self.total[0] + self.weight[0]
                self.value[part(0)] = self.value[part(0)] + splat(self.weight[0]) * floats(
                    v_rows[self.row[0], part(self.item % self.parts)]
                )

    @T.inline
    def finish(
        self, out_rows: T.Buffer, lse_rows: T.Buffer, row: Expr, wanted: bool | Expr = True
    ) -> None:
        """Add the splits up and, if `wanted`, write the row (rows, D) and its lse (rows,)."""
        self.sums[self.item // self.parts, part(self.item % self.parts)] = self.value[part(0)]
        if self.item % self.parts == 0:
            self.weights[self.item // self.parts] = self.total[0]
        barrier()
        if T.And(self.item < self.parts, wanted):
            for s in range(1, self.splits):
                self.total[0] = self.total[0] + self.weights[s]
                self.value[part(0)] = self.value[part(0)] + self.sums[s, part(self.item)]
            self.weight[0] = T.if_then_else(
                self.total[0] > T.float32(0), T.float32(1) / self.total[0], T.float32(0)
            )
            out_rows[row, part(self.item)] = T.Cast(
                f"{self.spec.dtype}x{VECTOR}", self.value[part(0)] * splat(self.weight[0])
            )
            if self.item == 0:
                lse_rows[row] = T.if_then_else(
                    self.total[0] > T.float32(0),
                    self.best[0] + T.log2(self.total[0]),
                    T.float32(EMPTY_LSE),
                )
