"""The sums of a register tile, in buffers that LLVM turns into registers."""

from __future__ import annotations

from itertools import product

from tvm.script import tirx as T

from ..constants import STACK_BYTES
from ..simd.vector import Expr

_FLOAT_BYTES = 4


@T.meta_class
class Accumulators:
    """`rows` x `vectors` vectors of float32 sums; made where the tile is computed. The methods are
    plain Python and emit straight-line code."""

    def __init__(self, rows: int, vectors: int, lanes: int) -> None:
        self.vectors = vectors
        self.lanes = lanes
        self.cells = list(product(range(rows), range(vectors)))
        self.buffer_cells = (STACK_BYTES - 1) // (lanes * _FLOAT_BYTES)
        num_buffers = -(-len(self.cells) // self.buffer_cells)
        self.buffers = [
            T.alloc_buffer((self.buffer_cells * lanes,), "float32") for _ in range(num_buffers)
        ]

    def cell(self, row: int, vector: int) -> tuple[T.Buffer, Expr]:
        """The buffer of a vector of sums, and where it lies there."""
        buffer, cell = divmod(row * self.vectors + vector, self.buffer_cells)
        return self.buffers[buffer], T.ramp(cell * self.lanes, 1, self.lanes)

    def add(self, row: int, vector: int, value: Expr) -> None:
        """Add a vector."""
        buffer, where = self.cell(row, vector)
        T.buffer_store(buffer, buffer[where] + value, [where])

    def load(self, sums: T.Buffer, first: Expr, row_elements: int) -> None:
        """Begin with those of `sums` (any,), rows `row_elements` apart from `first` on."""
        for row, vector in self.cells:
            buffer, where = self.cell(row, vector)
            T.buffer_store(buffer, sums[self.outside(first, row, vector, row_elements)], [where])

    def store(self, sums: T.Buffer, first: Expr, row_elements: int) -> None:
        """The same way back."""
        for row, vector in self.cells:
            buffer, where = self.cell(row, vector)
            T.buffer_store(sums, buffer[where], [self.outside(first, row, vector, row_elements)])

    def outside(self, first: Expr, row: int, vector: int, row_elements: int) -> Expr:
        """Where `load` and `store` find a vector."""
        return T.ramp(first + row * row_elements + vector * self.lanes, 1, self.lanes)
