"""Rows of queries and keys as the pilot sees them: centred, rotated, or just as they are.

Both changes keep the order of a query's scores: a mean taken from all keys moves them alike, and a
rotation of queries and keys alike changes none. They spread what INT8 would otherwise spend on a
few large dimensions.

Contract, the same bits on every target: float32 differences `k - mean`; then the unnormalized
Walsh-Hadamard transform over blocks of the largest power of two that divides head_dim, stage by
stage from distance 1, (a, b) -> (a + b, a - b) in float32. Of float16 rows, all of this is done
to what they hold, in float32.
"""

from __future__ import annotations

from tvm.script import tirx as T

from ..simd.shuffle import pick
from ..simd.storage import as_float32
from ..simd.vector import Expr, const_f32, max_lanes, splat
from ..spec import rotation_block


@T.meta_class
class PilotRow:
    """One row, changed. For a pilot that changes nothing it is never loaded: see `changed`.

    Attributes
    ----------
    changed : Python's, whether rows differ from what is stored.
    row : (1, D) float32, the last one loaded.
    """

    def __init__(self, head_dim: int, lanes: int, centered: bool, rotated: bool) -> None:
        self.lanes = lanes
        self.vectors = head_dim // lanes
        self.centered = centered
        self.changed = centered or rotated
        block = rotation_block(head_dim)
        self.distances = [1 << i for i in range(block.bit_length() - 1)] if rotated else []
        if self.changed:
            self.row = T.alloc_buffer((1, head_dim), "float32")

    def vector(self, index: Expr) -> Expr:
        return T.ramp(index * self.lanes, 1, self.lanes)

    @T.inline
    def load(self, rows: T.Buffer, row: Expr, means: T.Buffer, mean: Expr) -> None:
        """`row` = `rows[row]` of rows (any, D), less `means[mean]` of means (any, D) if centred."""
        for j in T.unroll(self.vectors):
            if self.centered:
                self.row[0, self.vector(j)] = (
                    as_float32(rows[row, self.vector(j)]) - means[mean, self.vector(j)]
                )
            else:
                self.row[0, self.vector(j)] = as_float32(rows[row, self.vector(j)])
        self.rotate()

    def rotate(self) -> None:
        """Plain Python: emits every stage, unrolled."""
        for distance in self.distances:
            if distance < self.lanes:
                for j in range(self.vectors):
                    self._rotate_within(j, distance)
            else:
                step = distance // self.lanes
                for first in range(0, self.vectors, 2 * step):
                    for j in range(first, first + step):
                        self._rotate_pair(j, j + step)

    def _rotate_pair(self, first: int, second: int) -> None:
        a = T.bind(self.row[0, self.vector(first)])
        b = T.bind(self.row[0, self.vector(second)])
        T.buffer_store(self.row, a + b, [0, self.vector(first)])
        T.buffer_store(self.row, a - b, [0, self.vector(second)])

    def _rotate_within(self, index: int, distance: int) -> None:
        """Lane i meets lane i ^ distance; the lower of the two takes the sum."""
        x = T.bind(self.row[0, self.vector(index)])
        partner = pick([x], [lane ^ distance for lane in range(self.lanes)])
        is_lower = (T.ramp(0, 1, self.lanes) & splat(T.int32(distance), self.lanes)) == splat(
            T.int32(0), self.lanes
        )
        # partner - x is partner + -x, to the bit
        T.buffer_store(self.row, partner + T.Select(is_lower, x, -x), [0, self.vector(index)])


@T.meta_class
class AbsoluteMaximum:
    """The largest |x| of rows as the pilot sees them: `clear`, `include` each, then `value`."""

    def __init__(self, view: PilotRow) -> None:
        self.view = view
        self.lanes = view.lanes
        self.lane_maxima = T.alloc_buffer((view.lanes,), "float32")

    @T.inline
    def clear(self) -> None:
        self.lane_maxima[T.ramp(0, 1, self.lanes)] = const_f32(0.0, self.lanes)

    @T.inline
    def include(self, rows: T.Buffer, row: Expr) -> None:
        """`rows[row]` of rows (any, D): a query, which is never centred."""
        if self.view.changed:
            self.view.load(rows, row, rows, 0)
            self.include_stored(self.view.row, 0)
        else:
            self.include_stored(rows, row)

    @T.inline
    def include_stored(self, rows: T.Buffer, row: Expr) -> None:
        for j in T.unroll(self.view.vectors):
            self.lane_maxima[T.ramp(0, 1, self.lanes)] = T.max(
                self.lane_maxima[T.ramp(0, 1, self.lanes)],
                T.abs(as_float32(rows[row, self.view.vector(j)])),
            )

    def value(self) -> Expr:
        return max_lanes(self.lane_maxima[T.ramp(0, 1, self.lanes)], self.lanes)
