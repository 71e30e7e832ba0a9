"""Rows as the pilot sees them, on Adreno: centred, rotated, measured and quantized in local memory.

The same float32 operations in the same order as on every target, so the same integers.
"""

from __future__ import annotations

from collections.abc import Callable

from tvm.script import tirx as T

from ..spec import ShadowSpec, rotation_block
from .limits import VECTOR, check_limits, local_bytes
from .vector import Expr, barrier, floats, part, splat

ROWS = 16
"""Rows of a work-group: a page of keys, or so many queries."""

ITEMS = 64
"""Work-items of the group."""


@T.meta_class
class PilotRows:
    """Up to `ROWS` rows. Made inside a kernel, by every work-item; `item` is its number in a group
    of `ITEMS`. All calls are made by all work-items of the group."""

    def __init__(self, spec: ShadowSpec, item: Expr) -> None:
        self.dim = spec.attention.head_dim
        check_limits("pilot rows", ITEMS, local_bytes([((ROWS, self.dim), 4)]))
        self.spec = spec
        self.item = item
        self.parts = self.dim // VECTOR
        self.steps = ROWS * self.parts // ITEMS
        self.rows = T.alloc_buffer((ROWS, self.dim), "float32", scope="shared")
        self.pairs = ROWS * self.dim // 2 // ITEMS
        pairs = self.pairs if spec.pilot.hadamard_rotation else 1
        self.sums = T.alloc_buffer((pairs,), "float32", scope="local")
        self.differences = T.alloc_buffer((pairs,), "float32", scope="local")
        self.largest = T.alloc_buffer((1,), "float32", scope="local")

    def vector(self, step: int | Expr) -> Expr:
        """The work-item's `step`-th vector of the group."""
        return step * ITEMS + self.item

    @T.inline
    def load(
        self,
        source: T.Buffer,
        row_of: Callable[[Expr], Expr],
        num_rows: Expr,
        means: T.Buffer,
        mean_row: Expr,
        centered: bool,
    ) -> None:
        """Rows `source[row_of(i)]` less `means[mean_row]`, rotated if the plan says so; `num_rows`
        of them, the others hold anything."""
        for step in range(self.steps):
            i = T.meta_var(self.vector(step))
            if i < num_rows * self.parts:
                if centered:
                    self.rows[i // self.parts, part(i % self.parts)] = (
                        floats(source[row_of(i // self.parts), part(i % self.parts)])
                        - means[mean_row, part(i % self.parts)]
                    )
                else:
                    self.rows[i // self.parts, part(i % self.parts)] = floats(
                        source[row_of(i // self.parts), part(i % self.parts)]
                    )
        barrier()
        if self.spec.pilot.hadamard_rotation:
            for stage in range(rotation_block(self.dim).bit_length() - 1):
                self.turn(T.shift_left(T.int32(1), stage))

    def first_of_pair(self, step: Expr, distance: Expr) -> tuple[Expr, Expr]:
        """Row and column of the first of the work-item's `step`-th pair, `distance` apart."""
        pair = self.vector(step)
        rest = pair % (self.dim // 2)
        return pair // (self.dim // 2), rest // distance * 2 * distance + rest % distance

    @T.inline
    def turn(self, distance: Expr) -> None:
        """A stage of the rotation: every pair becomes its sum and its difference. All are read
        before any is written, so that two barriers do."""
        for step in T.unroll(self.pairs):
            row, first = T.meta_var(self.first_of_pair(step, distance))
            self.sums[step] = self.rows[row, first] + self.rows[row, first + distance]
            self.differences[step] = self.rows[row, first] - self.rows[row, first + distance]
        barrier()
        for step in T.unroll(self.pairs):
            row, first = T.meta_var(self.first_of_pair(step, distance))
            self.rows[row, first] = self.sums[step]
            self.rows[row, first + distance] = self.differences[step]
        barrier()

    @T.inline
    def measure(self, maxima: T.Buffer, index_of: Callable[[Expr], Expr], num_rows: Expr) -> None:
        """`maxima[index_of(i)]` = the largest magnitude of row i."""
        if self.item < num_rows:
            self.largest[0] = T.float32(0)
            for d in range(self.dim):
                self.largest[0] = T.max(self.largest[0], T.abs(self.rows[self.item, d]))
            maxima[index_of(self.item)] = self.largest[0]

    @T.inline
    def quantize(
        self,
        scale_of: Callable[[Expr], Expr],
        target: T.Buffer,
        row_of: Callable[[Expr], Expr],
        num_rows: Expr,
    ) -> None:
        """`target[row_of(i)]` = row i over `scale_of(i)`, rounded half to even, clamped."""
        most = T.meta_var(splat(T.float32(self.spec.pilot.quant_max)))
        for step in range(self.steps):
            i = T.meta_var(self.vector(step))
            if i < num_rows * self.parts:
                target[row_of(i // self.parts), part(i % self.parts)] = T.Cast(
                    f"int8x{VECTOR}",
                    T.call_pure_extern(
                        f"float32x{VECTOR}",
                        "rint",
                        T.max(
                            T.min(
                                self.rows[i // self.parts, part(i % self.parts)]
                                / splat(scale_of(i // self.parts)),
                                most,
                            ),
                            splat(T.float32(-self.spec.pilot.quant_max)),
                        ),
                    ),
                )
