"""Moving lanes about: halves, concatenation, transposition of a square of vectors.

Expression builders as in `vector`: called while TVMScript is parsed, they return TIR expressions.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tvm import tirx
from tvm.script import tirx as T

from .vector import Expr

BLOCK_LANES = 4
"""Lanes of 128 bits: within these every target shuffles in one instruction."""


def pick(vectors: Sequence[Expr], lanes: Iterable[int]) -> Expr:
    """The given lanes, numbered through all `vectors`; no more of them than the vectors have."""
    return tirx.Shuffle(list(vectors), [tirx.IntImm("int32", lane) for lane in lanes])


def concat(vectors: Sequence[Expr], lanes: int) -> Expr:
    """The vectors, of `lanes` lanes each, one after the other."""
    return vectors[0] if len(vectors) == 1 else pick(vectors, range(lanes * len(vectors)))


def interleave(vectors: Sequence[Expr], lanes: int) -> Expr:
    """Lane 0 of each vector, then lane 1 of each, and so on; vectors of `lanes` lanes."""
    return pick(vectors, [at * lanes + lane for lane in range(lanes) for at in range(len(vectors))])


def transpose(rows: Sequence[Expr], lanes: int) -> list[Expr]:
    """The columns of a square: `lanes` rows of `lanes` float32 lanes; 4, 8 or 16.

    First 4 x 4 squares within the 128-bit blocks, then whole blocks. Emits bindings of what is used
    more than once, so that the expressions stay small.
    """
    assert len(rows) == lanes
    groups = [
        transpose_blocks(rows[first : first + BLOCK_LANES], lanes)
        for first in range(0, lanes, BLOCK_LANES)
    ]
    columns = []
    for block in range(0, lanes, BLOCK_LANES):
        for column in range(BLOCK_LANES):
            parts = [group[column] for group in groups]
            columns.append(_join_blocks(parts, block, lanes))
    return columns


def transpose_blocks(rows: Sequence[Expr], lanes: int) -> list[Expr]:
    """Four vectors of four; block b of the i-th holds lane 4 b + i of the four rows."""
    blocks = range(0, lanes, BLOCK_LANES)

    def each_block(x: Expr, y: Expr, pattern: Sequence[int]) -> Expr:
        # a pattern lane from 4 on is one of y
        lane_numbers = [
            block + lane % BLOCK_LANES + lane // BLOCK_LANES * lanes
            for block in blocks
            for lane in pattern
        ]
        return T.bind(pick([x, y], lane_numbers))

    low, high = (0, 4, 1, 5), (2, 6, 3, 7)
    first, second = (0, 1, 4, 5), (2, 3, 6, 7)
    a, b, c, d = (T.bind(row) for row in rows)
    ab_low, ab_high = each_block(a, b, low), each_block(a, b, high)
    cd_low, cd_high = each_block(c, d, low), each_block(c, d, high)
    return [
        each_block(ab_low, cd_low, first),
        each_block(ab_low, cd_low, second),
        each_block(ab_high, cd_high, first),
        each_block(ab_high, cd_high, second),
    ]


def _join_blocks(parts: Sequence[Expr], first_lane: int, lanes: int) -> Expr:
    """One vector of the same block of every part, in order."""
    if len(parts) == 1:
        return parts[0]
    width = 2 * BLOCK_LANES
    pairs = [
        pick(
            [left, right],
            [start + lane for start in (first_lane, lanes + first_lane) for lane in range(4)],
        )
        for left, right in zip(parts[::2], parts[1::2], strict=True)
    ]
    return concat(pairs, width)
