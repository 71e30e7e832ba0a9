"""The rows of a query tile: queries in, outputs out, transposed on the way.

A row is a query of a head. Q and the output are held as `[head_dim, rows]`, rows in lanes; squares
of `lanes` rows by `lanes` dimensions are turned in registers.
"""

from __future__ import annotations

from typing import Any

from tvm.script import tirx as T

from ..constants import EMPTY_LSE, LOG2_E
from ..simd.shuffle import transpose
from ..simd.storage import as_float32, as_stored
from ..simd.vector import const_f32, splat
from ..spec import AttentionSpec
from .tiles import AttentionTile

Expr = Any  # a TIR expression; TVM ships no types

UNSEEN_SCORE = -1.0e30
"""Score of a masked key, and where the running maximum starts. A query that sees a key at all sees
one in its first block, so its maximum is real from then on and masked keys weigh 2^-126; queries
that see none are told by `limits`, never by this value."""


@T.meta_class
class TileRows:
    """What a tile holds for each of its rows, from `load` to `finish`.

    `start` is `name_rows`, for neighbouring queries of one head, and `load`; a caller whose rows
    are others fills `row_query` and `row_head` itself.

    Attributes
    ----------
    row_query, row_head : (queries,) int32, which query of which head each row of the tile is.
    limits : (queries,) int32, the caller's: how many keys, counted from key 0, each query sees.
        Zero or less means none.
    q_t : (head_dim, queries) float32, queries times sm_scale * log2(e).
    o_t : (head_dim, queries) float32, the weighted sum of the values so far.
    row_max, row_sum : (queries,) float32, largest base-2 score and sum of weights so far.
    """

    def __init__(self, spec: AttentionSpec, sizes: AttentionTile) -> None:
        self.dims = spec.head_dim
        self.q_scale = spec.sm_scale * LOG2_E
        self.sizes = sizes
        self.lanes = sizes.lanes
        self.q_t = T.alloc_buffer((spec.head_dim, sizes.queries), "float32")
        self.o_t = T.alloc_buffer((spec.head_dim, sizes.queries), "float32")
        self.row_max = T.alloc_buffer((sizes.queries,), "float32")
        self.row_sum = T.alloc_buffer((sizes.queries,), "float32")
        self.row_query = T.alloc_buffer((sizes.queries,), "int32")
        self.row_head = T.alloc_buffer((sizes.queries,), "int32")
        self.limits = T.alloc_buffer((sizes.queries,), "int32")

    def vector(self, index: Expr, base: Expr = 0) -> Expr:
        """The element indices of the `index`-th vector after `base`."""
        return T.ramp(base + index * self.lanes, 1, self.lanes)

    @T.inline
    def start(self, q: T.Buffer, head: Expr, first_query: Expr, num_queries: Expr) -> None:
        """Load `q[first_query : first_query + num_queries, head]` of q (tokens, Hq, D), and clear
        the state; 1 <= num_queries <= queries."""
        self.name_rows(head, first_query, num_queries)
        self.load(q)

    @T.inline
    def name_rows(self, head: Expr, first_query: Expr, num_queries: Expr) -> None:
        """The rows are `num_queries` queries of one head from `first_query` on."""
        for m in range(self.sizes.queries):
            # padding rows repeat the last one: finite, and never written back
            self.row_query[m] = first_query + T.min(m, num_queries - 1)
            self.row_head[m] = head

    @T.inline
    def load(self, q: T.Buffer) -> None:
        """Load the named rows of q (tokens, Hq, D), and clear the state."""
        for v in range(self.sizes.queries // self.lanes):
            self.row_max[self.vector(v)] = const_f32(UNSEEN_SCORE, self.lanes)
            self.row_sum[self.vector(v)] = const_f32(0.0, self.lanes)
            for square in range(self.dims // self.lanes):
                self.load_square(q, v * self.lanes, square * self.lanes)

    def load_square(self, q: Any, first_row: Expr, first_dim: Expr) -> None:
        """Emit the transposition of `lanes` rows by `lanes` dimensions."""
        rows = [
            as_float32(self.elements(q, first_row + lane, first_dim))
            * const_f32(self.q_scale, self.lanes)
            for lane in range(self.lanes)
        ]
        for dim, values in enumerate(transpose(rows, self.lanes)):
            T.buffer_store(self.q_t, values, [first_dim + dim, self.vector(0, first_row)])
            nothing = const_f32(0.0, self.lanes)
            T.buffer_store(self.o_t, nothing, [first_dim + dim, self.vector(0, first_row)])

    def place(self, row: Expr, first_dim: Expr) -> list[Expr]:
        """Where a vector of a row lies in (tokens, Hq, D)."""
        return [self.row_query[row], self.row_head[row], self.vector(0, first_dim)]

    def elements(self, rows: Any, row: Expr, first_dim: Expr) -> Expr:
        query, head, dims = self.place(row, first_dim)
        return rows[query, head, dims]

    @T.inline
    def finish(self, output: T.Buffer, lse: T.Buffer, num_queries: Expr) -> None:
        """Write `output` (tokens, Hq, D) and `lse` (tokens, Hq), base 2, of the tile's first
        `num_queries` rows; zeros and EMPTY_LSE where a query saw no key."""
        whole = T.bind(num_queries // self.lanes)
        for v in range(whole):
            for square in range(self.dims // self.lanes):
                self.store_square(output, v * self.lanes, square * self.lanes)
        for rest in range(num_queries - whole * self.lanes):
            m = T.bind(whole * self.lanes + rest)
            inverse = T.bind(T.float32(1) / self.row_sum[m])
            for d in range(self.dims):
                output[self.row_query[m], self.row_head[m], d] = as_stored(
                    T.Select(self.limits[m] > 0, self.o_t[d, m] * inverse, T.float32(0)),
                    output.dtype,
                )
        for m in range(num_queries):
            lse[self.row_query[m], self.row_head[m]] = T.if_then_else(
                self.limits[m] > 0,
                self.row_max[m] + T.log2(self.row_sum[m]),
                T.float32(EMPTY_LSE),
            )

    def store_square(self, output: Any, first_row: Expr, first_dim: Expr) -> None:
        """Emit the normalization and transposition of `lanes` rows by `lanes` dimensions."""
        rows = self.vector(0, first_row)
        seen = self.limits[rows] > splat(T.int32(0), self.lanes)
        inverse = T.bind(const_f32(1.0, self.lanes) / self.row_sum[rows])
        columns = [
            T.Select(seen, self.o_t[first_dim + dim, rows] * inverse, const_f32(0.0, self.lanes))
            for dim in range(self.lanes)
        ]
        for lane, values in enumerate(transpose(columns, self.lanes)):
            where = self.place(first_row + lane, first_dim)
            T.buffer_store(output, as_stored(values, output.dtype), where)
