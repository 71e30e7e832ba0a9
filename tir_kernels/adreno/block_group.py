"""Rows of queries that share their keys: a work-group with a row and a column to each work-item.

A tile of K, then of V, is brought to local memory once for all rows; rows may be of several queries
and of all heads of a GQA group. Softmax online, in base 2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from tvm.script import tirx as T

from ..constants import EMPTY_LSE, LOG2_E
from ..head_rest import HeadRest
from ..spec import AttentionSpec
from .limits import LOCAL_MEMORY_BYTES, VECTOR, LocalBuffer, check_limits, local_bytes
from .vector import LOWEST, Expr, barrier, floats, part, splat, zeros

_MAX_ROWS = 16
_MAX_COLUMNS = 16
"""256 work-items: two waves of an Adreno with 128 lanes, and registers enough for each."""

_MIN_ROWS = 4
"""Fewer rows would leave too few work-items to load a tile."""


@dataclass(frozen=True)
class BlockSizes:
    """Rows of queries and columns, the keys of a tile; a work-item each."""

    rows: int
    columns: int

    @property
    def items(self) -> int:
        return self.rows * self.columns


def _local_buffers(spec: AttentionSpec, sizes: BlockSizes) -> list[LocalBuffer]:
    stored = spec.element_bytes
    return [
        ((sizes.rows, spec.head_dim), stored),
        ((sizes.columns, spec.head_dim), stored),
        ((sizes.rows, sizes.columns), 4),
        ((sizes.rows, sizes.columns), 4),
    ]


def block_sizes(spec: AttentionSpec, wanted_rows: int = _MAX_ROWS) -> BlockSizes:
    """As many of the wanted rows as local memory has room for; whole columns of vectors.

    Raises `SpecError` if it has no room for the fewest.
    """
    parts = spec.head_dim // VECTOR
    columns = max(n for n in range(1, _MAX_COLUMNS + 1) if parts % n == 0)
    rows = max(_MIN_ROWS, min(wanted_rows, _MAX_ROWS))
    while rows > _MIN_ROWS:
        if local_bytes(_local_buffers(spec, BlockSizes(rows, columns))) <= LOCAL_MEMORY_BYTES:
            break
        rows = max(_MIN_ROWS, rows // 2)
    sizes = BlockSizes(rows, columns)
    check_limits("block", sizes.items, local_bytes(_local_buffers(spec, sizes)))
    return sizes


@T.meta_class
class BlockGroup:
    """Made inside a kernel, by every work-item; `row` and `column` are its place in a group of
    `sizes`. All calls are made by all work-items of the group.

    Attributes
    ----------
    limit : (1,) int32, the keys that the work-item's row sees, counted from the first; set it
        before `attend`.
    """

    def __init__(self, spec: AttentionSpec, sizes: BlockSizes, row: Expr, column: Expr) -> None:
        self.spec = spec
        self.sizes = sizes
        self.row = row
        self.column = column
        self.item = row * sizes.columns + column
        self.parts = spec.head_dim // VECTOR
        self.vectors = self.parts // sizes.columns
        self.queries = T.alloc_buffer((sizes.rows, spec.head_dim), spec.dtype, scope="shared")
        self.tile = T.alloc_buffer((sizes.columns, spec.head_dim), spec.dtype, scope="shared")
        self.scores = T.alloc_buffer((sizes.rows, sizes.columns), "float32", scope="shared")
        self.weights = T.alloc_buffer((sizes.rows, sizes.columns), "float32", scope="shared")
        self.limit = T.alloc_buffer((1,), "int32", scope="local")
        self.score = T.alloc_buffer((1,), "float32", scope="local")
        self.best = T.alloc_buffer((1,), "float32", scope="local")
        self.factor = T.alloc_buffer((1,), "float32", scope="local")
        self.total = T.alloc_buffer((1,), "float32", scope="local")
        self.dot = T.alloc_buffer((VECTOR,), "float32", scope="local")
        self.value = T.alloc_buffer((self.vectors * VECTOR,), "float32", scope="local")

    @T.inline
    def start(self, q_rows: T.Buffer, num_rows: Expr, row_of: Callable[[Expr], Expr]) -> None:
        """Load `num_rows` rows of queries: the i-th is `q_rows[row_of(i)]`."""
        for step in range(-(-self.sizes.rows * self.parts // self.sizes.items)):
            i = T.meta_var(step * self.sizes.items + self.item)
            if i < num_rows * self.parts:
                self.queries[i // self.parts, part(i % self.parts)] = q_rows[
                    row_of(i // self.parts), part(i % self.parts)
                ]
        self.best[0] = T.float32(LOWEST)
        self.total[0] = T.float32(0)
        for c in T.unroll(self.vectors):
            self.value[part(c)] = zeros()

    @T.inline
    def begin_with(self, rest: HeadRest) -> None:
        """Right after `start`: the softmax's state after the rest, before any token."""
        barrier()  # the queries are written
        if rest.left_out > 0:
            self.dot[part(0)] = zeros()
            for c in range(self.parts):
                self.dot[part(0)] = (
                    self.dot[part(0)]
                    + floats(self.queries[self.row, part(c)]) * rest.means[rest.key, part(c)]
                )
            self.best[0] = ((self.dot[0] + self.dot[1]) + (self.dot[2] + self.dot[3])) * T.float32(
                self.spec.sm_scale * LOG2_E
            ) + T.log2(T.Cast("float32", rest.left_out))
            self.total[0] = T.float32(1)
            for c in T.unroll(self.vectors):
                self.value[part(c)] = rest.means[
                    rest.value, part(c * self.sizes.columns + self.column)
                ]

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
        for tile in range(T.ceildiv(count, self.sizes.columns)):
            first = T.meta_var(tile * self.sizes.columns)
            tokens = T.meta_var(T.min(self.sizes.columns, count - first))
            barrier()  # the tile before has been read, or the queries written
            self.load(k_rows, 0, tokens, lambda i: row_of(first + i))
            barrier()
            self.score_column(first)
            barrier()
            self.raise_best()
            self.load(v_rows, value_offset, tokens, lambda i: row_of(first + i))
            barrier()
            self.add_values(tokens)

    @T.inline
    def load(
        self, rows: T.Buffer, offset: int, tokens: Expr, row_of: Callable[[Expr], Expr]
    ) -> None:
        """`tile[i]` = `rows[row_of(i) + offset]` for i below `tokens`, all work-items together."""
        for step in range(-(-self.sizes.columns * self.parts // self.sizes.items)):
            i = T.meta_var(step * self.sizes.items + self.item)
            if i < tokens * self.parts:
                self.tile[i // self.parts, part(i % self.parts)] = rows[
                    row_of(i // self.parts) + offset, part(i % self.parts)
                ]

    @T.inline
    def score_column(self, first: Expr) -> None:
        """The work-item's own row times its own column, in units of base-2 exponents."""
        self.dot[part(0)] = zeros()
        for c in range(self.parts):
            self.dot[part(0)] = self.dot[part(0)] + floats(
                self.queries[self.row, part(c)]
            ) * floats(self.tile[self.column, part(c)])
        self.score[0] = ((self.dot[0] + self.dot[1]) + (self.dot[2] + self.dot[3])) * T.float32(
            self.spec.sm_scale * LOG2_E
        )
        # what a tile's missing columns hold may be anything, NaN too
        self.score[0] = T.Select(
            first + self.column < self.limit[0], self.score[0], T.float32(LOWEST)
        )
        self.scores[self.row, self.column] = self.score[0]

    @T.inline
    def raise_best(self) -> None:
        """Take the row's largest score into `best`, and what was added up into its scale."""
        self.factor[0] = self.best[0]
        for i in range(self.sizes.columns):
            self.best[0] = T.max(self.best[0], self.scores[self.row, i])
        self.factor[0] = T.exp2(self.factor[0] - self.best[0])
        self.total[0] = self.total[0] * self.factor[0]
        for c in T.unroll(self.vectors):
            self.value[part(c)] = self.value[part(c)] * splat(self.factor[0])
        self.weights[self.row, self.column] = T.Select(
            self.score[0] > T.float32(LOWEST), T.exp2(self.score[0] - self.best[0]), T.float32(0)
        )

    @T.inline
    def add_values(self, tokens: Expr) -> None:
        for i in range(tokens):
            self.factor[0] = self.weights[self.row, i]
            self.total[0] = self.total[0] + self.factor[0]
            for c in T.unroll(self.vectors):
                self.value[part(c)] = self.value[part(c)] + splat(self.factor[0]) * floats(
                    self.tile[i, part(c * self.sizes.columns + self.column)]
                )

    @T.inline
    def finish(
        self, out_rows: T.Buffer, lse_rows: T.Buffer, row: Expr, dtype: str | None = None
    ) -> None:
        """Write the work-item's row to `out_rows[row]` (rows, D) and `lse_rows[row]` (rows,)."""
        self.factor[0] = T.if_then_else(
            self.total[0] > T.float32(0), T.float32(1) / self.total[0], T.float32(0)
        )
        for c in T.unroll(self.vectors):
            out_rows[row, part(c * self.sizes.columns + self.column)] = T.Cast(
                f"{dtype or self.spec.dtype}x{VECTOR}",
                self.value[part(c)] * splat(self.factor[0]),
            )
        if self.column == 0:
            lse_rows[row] = T.if_then_else(
                self.total[0] > T.float32(0),
                self.best[0] + T.log2(self.total[0]),
                T.float32(EMPTY_LSE),
            )
