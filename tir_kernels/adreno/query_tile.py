"""How rows of queries are cut for work-groups: tiles that never cross a sequence.

Where sequences start is known on the device only, so a launch has as many work-groups as there can
be tiles, and each finds its own; the surplus ones find none.
"""

from __future__ import annotations

from tvm.script import tirx as T

from .vector import Expr


def max_tiles(tokens: Expr, batch: Expr, unit: int, rows: int) -> Expr:
    """Tiles of `rows` rows that `tokens` queries of `unit` rows each can make at most."""
    return T.ceildiv(tokens * unit, rows) + batch


@T.meta_class
class QueryTile:
    """One tile of up to `rows` rows of a sequence whose queries have `unit` rows each. Made inside
    a kernel.

    Attributes, after `locate`
    ----------
    sequence : its number. first, num_rows : its rows, counted from the sequence's first; 0 rows if
        there is no such tile. first_query, num_queries : of the sequence.
    """

    def __init__(self, unit: int, rows: int) -> None:
        self.unit = unit
        self.rows = rows
        self.found = T.alloc_buffer((1,), "int32", scope="local")
        self.rest = T.alloc_buffer((1,), "int32", scope="local")
        self.state = T.alloc_buffer((5,), "int32", scope="local")

    @property
    def sequence(self) -> Expr:
        return self.state[0]

    @property
    def first(self) -> Expr:
        return self.state[1]

    @property
    def num_rows(self) -> Expr:
        return self.state[2]

    @property
    def first_query(self) -> Expr:
        return self.state[3]

    @property
    def num_queries(self) -> Expr:
        return self.state[4]

    @T.inline
    def locate(self, tile: Expr, q_indptr: T.Buffer, batch: Expr) -> None:
        self.found[0] = 0
        self.rest[0] = tile
        self.state[0] = 0
        for b in range(batch):
            tiles = T.meta_var(T.ceildiv((q_indptr[b + 1] - q_indptr[b]) * self.unit, self.rows))
            if self.found[0] == 0:
                if self.rest[0] < tiles:
                    self.state[0] = b
                    self.found[0] = 1
                else:
                    self.rest[0] = self.rest[0] - tiles
        self.state[1] = self.rest[0] * self.rows
        self.state[3] = q_indptr[self.state[0]]
        self.state[4] = q_indptr[self.state[0] + 1] - self.state[3]
        self.state[2] = T.if_then_else(
            self.found[0] == 1,
            T.min(self.rows, self.state[4] * self.unit - self.state[1]),
            0,
        )

    def query_row(self, row: Expr, first_head: Expr, num_heads: int) -> Expr:
        """Where a row of the tile lies among the rows of (tokens, num_heads): a query's rows are
        `unit` heads from `first_head` on."""
        packed = self.first + row
        return (self.first_query + packed // self.unit) * num_heads + (
            first_head + packed % self.unit
        )
