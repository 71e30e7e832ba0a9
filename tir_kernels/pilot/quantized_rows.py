"""Rows of small integers against packed keys, a register tile at a time."""

from __future__ import annotations

from typing import Protocol

from tvm.script import tirx as T

from ..simd.shuffle import pick
from ..simd.vector import Expr, splat
from .int8_dot import Int8DotMethod, NarrowSums


class ScoreSink(Protocol):
    """Where a register tile's scores go."""

    def start(self, query: Expr) -> Expr:
        """What is added to every score of a query of the tile; an int32 scalar."""

    def put(self, pilot: QuantizedRows, sums: T.Buffer, tile: Expr) -> None:
        """Take the scores against the `tile`-th `register_keys` keys: query q and block b of keys
        lie at `sums[pilot.cell(q, b)]`, int32. An inline."""


@T.meta_class
class QuantizedRows:
    """The rows of one register tile, and their products with packed keys.

    Attributes
    ----------
    q8 : (register_queries / query_rows, query_rows * size) in the dot method's query type; `size`
        is a multiple of its group. A row of two queries has a group of one, then of the other.
    bias : (register_queries,) int32, where each row's sums start: it cancels the key offset.
    """

    def __init__(self, size: Expr, dot: Int8DotMethod) -> None:
        self.dot = dot
        self.steps = size // dot.group
        self.q8 = T.alloc_buffer(
            (dot.register_queries // dot.query_rows, dot.query_rows * size), dot.query_dtype
        )
        self.bias = T.alloc_buffer((dot.register_queries,), "int32")

    def store(self, query: Expr, first: Expr, elements: Expr, lanes: int) -> None:
        """Plain Python: emits that the elements of a query from the `first`-th on, a multiple of
        `lanes`, are these, int32. A row of two queries takes no more of them than a group."""
        group, rows = self.dot.group, self.dot.query_rows
        place = [query, T.ramp(first, 1, lanes)]
        if rows > 1:
            within = query % rows * group + first % group
            place = [query // rows, T.ramp(first // group * (rows * group) + within, 1, lanes)]
        T.buffer_store(self.q8, T.Cast(f"{self.dot.query_dtype}x{lanes}", elements), place)

    def word(self, query: Expr, step: Expr) -> Expr:
        """What one step takes from a query, in every lane."""
        if self.dot.group == 1:
            return splat(self.q8[query, step], self.dot.lanes)
        elements = self.q8[query, T.ramp(step * self.dot.group, 1, self.dot.group)]
        return splat(T.reinterpret("int32", elements), self.dot.lanes)

    def word_pair(self, pair: Expr, step: Expr) -> Expr:
        """What one step of a matrix instruction takes from a pair of queries."""
        size = 2 * self.dot.group
        return self.q8[pair, T.ramp(step * size, 1, size)]

    def cell(self, query: Expr, block: Expr) -> Expr:
        """The element indices of one accumulator of the register tile."""
        return T.ramp(
            (query * self.dot.register_blocks + block) * self.dot.lanes, 1, self.dot.lanes
        )

    @T.inline
    def score(self, packed: T.Buffer, first_block: Expr, num_tiles: Expr, sink: ScoreSink) -> None:
        """Hand to `sink` the tile's rows against the keys of `packed` from `first_block` on."""
        for tile in range(num_tiles):
            acc = T.alloc_buffer((self.dot.register_scores,), "int32")
            for q in T.unroll(self.dot.register_queries):
                for b in T.unroll(self.dot.register_blocks):
                    acc[self.cell(q, b)] = splat(self.bias[q] + sink.start(q), self.dot.lanes)
            first = T.bind(first_block + tile * self.dot.register_blocks)
            if self.dot.query_rows > 1:
                self.add_matrix_products(acc, packed, first)
            elif self.dot.narrow is None:
                self.add_products(acc, packed, first)
            else:
                self.add_narrow_sums(self.dot.narrow, acc, packed, first)
            sink.put(self, acc, tile)

    def keys(self, packed: T.Buffer, block: Expr, step: Expr) -> Expr:
        """What one step takes from a block of keys."""
        return packed[block, step, T.ramp(0, 1, self.dot.lanes * self.dot.group)]

    @T.inline
    def add_products(self, acc: T.Buffer, packed: T.Buffer, first: Expr) -> None:
        """`acc` += the rows times the blocks of keys from the `first`-th on."""
        for step in range(self.steps):
            # a query's word is used up before the next one is loaded: registers are short
            for q in T.unroll(self.dot.register_queries):
                for b in T.unroll(self.dot.register_blocks):
                    acc[self.cell(q, b)] = self.dot.accumulate(
                        acc[self.cell(q, b)],
                        self.keys(packed, first + b, step),
                        self.word(q, step),
                    )

    @T.inline
    def add_matrix_products(self, acc: T.Buffer, packed: T.Buffer, first: Expr) -> None:
        """The same, of two queries and half a block of keys at a time."""
        self.exchange(acc)
        for step in range(self.steps):
            for pair in T.unroll(self.dot.register_queries // 2):
                for b in T.unroll(self.dot.register_blocks):
                    for half in T.unroll(2):
                        acc[self.cell(2 * pair + half, b)] = self.dot.accumulate(
                            acc[self.cell(2 * pair + half, b)],
                            self.half_keys(packed, first + b, step, half),
                            self.word_pair(pair, step),
                        )
        self.exchange(acc)

    def half_keys(self, packed: T.Buffer, block: Expr, step: Expr, half: Expr) -> Expr:
        """What one step of a matrix instruction takes from a block of keys."""
        size = self.dot.lanes // 2 * self.dot.group
        return packed[block, step, T.ramp(half * size, 1, size)]

    @T.inline
    def exchange(self, acc: T.Buffer) -> None:
        """Turn the vectors of two queries' scores against a block of keys into one for each half of
        the keys, or back: the second half of one and the first half of the other change places."""
        for pair in T.unroll(self.dot.register_queries // 2):
            for b in T.unroll(self.dot.register_blocks):
                self.exchange_halves(acc, self.cell(2 * pair, b), self.cell(2 * pair + 1, b))

    def exchange_halves(self, acc: T.Buffer, first: Expr, second: Expr) -> None:
        """Plain Python: emits `exchange` of two vectors."""
        lanes, half = self.dot.lanes, self.dot.lanes // 2
        x, y = T.bind(acc[first]), T.bind(acc[second])
        low = [*range(half), *range(lanes, lanes + half)]
        T.buffer_store(acc, pick([x, y], low), [first])
        T.buffer_store(acc, pick([x, y], [half + lane for lane in low]), [second])

    @T.inline
    def add_narrow_sums(
        self, narrow: NarrowSums, acc: T.Buffer, packed: T.Buffer, first: Expr
    ) -> None:
        """The same, with as many steps as fit in 16 bits between two additions to `acc`."""
        part_steps = T.meta_var(narrow.steps(self.steps))
        sums = T.alloc_buffer((2 * self.dot.register_scores,), "int16")
        self.clear_narrow(sums)
        # One loop, not one in another: LLVM would unroll the inner one and run out of registers.
        for step in range(self.steps):
            for q in T.unroll(self.dot.register_queries):
                for b in T.unroll(self.dot.register_blocks):
                    sums[self.narrow_cell(q, b)] = sums[self.narrow_cell(q, b)] + narrow.products(
                        self.keys(packed, first + b, step), self.word(q, step)
                    )
            if step % part_steps == part_steps - 1:
                for q in T.unroll(self.dot.register_queries):
                    for b in T.unroll(self.dot.register_blocks):
                        acc[self.cell(q, b)] = acc[self.cell(q, b)] + narrow.widened(
                            sums[self.narrow_cell(q, b)]
                        )
                self.clear_narrow(sums)

    @T.inline
    def clear_narrow(self, sums: T.Buffer) -> None:
        for q in T.unroll(self.dot.register_queries):
            for b in T.unroll(self.dot.register_blocks):
                sums[self.narrow_cell(q, b)] = splat(T.int16(0), 2 * self.dot.lanes)

    def narrow_cell(self, query: Expr, block: Expr) -> Expr:
        """The element indices of one accumulator of 16-bit sums."""
        lanes = 2 * self.dot.lanes
        return T.ramp((query * self.dot.register_blocks + block) * lanes, 1, lanes)
