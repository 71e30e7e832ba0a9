"""The register tile of the pilot's scores: a few queries by a few blocks of 32 keys, by `vrmpy`.

Keys are packed (N / 32, D / 4, 32) words of four bytes: one vector holds the same four dimensions
of 32 keys, and the sums of a block lie in the words of one accumulator. `vrmpy` multiplies unsigned
bytes by signed ones, so keys are stored with 128 added, and sums begin at -128 times the sum of
the query: that is exact.
"""

from __future__ import annotations

from collections.abc import Sequence

from tvm.script import tirx as T

from ..simd.vector import Expr
from .hvx import VRMPY_PER_PACKET, WORDS, splat_word, vrmpy, words

QUERIES = 4
BLOCKS = 4
"""16 accumulators and the keys fit 32 registers. A step takes 16 `vrmpy`, which two pipes do in 8
packets, and in the same packets 4 loads of keys and 4 of queries."""

TILE_KEYS = BLOCKS * WORDS
"""Keys of a tile; N is a multiple of it."""

GROUP = 4
"""Dimensions that one `vrmpy` takes."""

_UNROLLED_STEPS = 16
"""Steps between two jumps, at most: LLVM doesn't overlap the loads of one turn of this loop with
the products of the one before, which costs three packets a turn."""

KEY_BIAS = 128
"""Added to keys."""

_BIASES = KEY_BIAS * 0x01010101 - (1 << 32)
"""The bias in four bytes, as a signed word."""


def vrmpy_bound_packets(rows: int, keys: int, head_dim: int) -> int:
    """The fewest packets that can issue the products of `rows` queries with `keys` keys."""
    return rows * (keys // WORDS) * (head_dim // GROUP) // VRMPY_PER_PACKET


@T.meta_class
class ScoreTile:
    """INT32 sums of one tile, in registers; made inside a kernel.

    Parameters
    ----------
    queries : (heads, M, D) int8.
    packed : (N / 32, D / 4, 32) int32.

    Attributes
    ----------
    starts : a vector a query, what its sums begin with.
    """

    def __init__(self, queries: T.Buffer, packed: T.Buffer, num_rows: int, head_dim: int) -> None:
        self.words = T.decl_buffer((num_rows, head_dim // GROUP), "int32", data=queries.data)
        self.packed = packed
        self.steps = head_dim // GROUP
        self.unrolled = max(n for n in range(1, _UNROLLED_STEPS + 1) if self.steps % n == 0)
        self.sums = [
            [T.alloc_buffer((WORDS,), "int32") for _ in range(BLOCKS)] for _ in range(QUERIES)
        ]
        self.starts = [T.alloc_buffer((WORDS,), "int32") for _ in range(QUERIES)]

    @T.inline
    def begin(self, row: Expr, start: Expr) -> None:
        """The tiles that follow are of the queries `row` and on; `start` is added to all sums."""
        self.clear_starts()
        for turn in range(self.steps // self.unrolled):
            for step in T.unroll(self.unrolled):
                self.add_biases(row, turn * self.unrolled + step)
        self.close_starts(start)

    def clear_starts(self) -> None:
        """Plain Python, as are those that follow without `T.inline`."""
        for total in self.starts:
            T.buffer_store(total, splat_word(T.int32(0)), [words(0)])

    def add_biases(self, row: Expr, step: Expr) -> None:
        """What the keys' bias adds in four dimensions."""
        biases = T.bind(splat_word(T.int32(_BIASES)))
        for q, total in enumerate(self.starts):
            T.buffer_store(
                total, vrmpy(total[words(0)], biases, self.words[row + q, step]), [words(0)]
            )

    def close_starts(self, start: Expr) -> None:
        first = T.bind(splat_word(start))
        for total in self.starts:
            T.buffer_store(total, first - total[words(0)], [words(0)])

    @T.inline
    def run(self, row: Expr, block: Expr) -> None:
        """The sums of the queries `row` and on with the keys `32 * block` and on."""
        self.clear()
        for turn in range(self.steps // self.unrolled):
            for step in T.unroll(self.unrolled):
                self.accumulate(row, block, turn * self.unrolled + step)

    def clear(self) -> None:
        for start, sums in zip(self.starts, self.sums, strict=True):
            first = T.bind(start[words(0)])
            for total in sums:
                T.buffer_store(total, first, [words(0)])

    def accumulate(self, row: Expr, block: Expr, step: Expr) -> None:
        """Four dimensions' products."""
        keys = [T.bind(self.packed[block + b, step, words(0)]) for b in range(BLOCKS)]
        for q, sums in enumerate(self.sums):
            query = T.bind(self.words[row + q, step])
            for key, total in zip(keys, sums, strict=True):
                T.buffer_store(total, vrmpy(total[words(0)], key, query), [words(0)])

    def values(self, query: int) -> Sequence[Expr]:
        """The sums of a query, a vector a block."""
        return [total[words(0)] for total in self.sums[query]]
