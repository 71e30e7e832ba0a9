"""Rows of 8-bit scores for top-k: requantized and narrowed to bytes in the register tile."""

from __future__ import annotations

from collections.abc import Callable

from tvm.script import tirx as T

from ..constants import INT8_QMAX, MASKED_BYTE
from ..features import CpuFeatures, Int8Dot
from ..simd.shuffle import BLOCK_LANES, pick
from ..simd.vector import Expr, splat
from ..spec import ShadowSpec
from ..x86.int16 import pack_int16
from .key_shadow import KeyShadow
from .packed_requantize import requantize_pair
from .plan_table import PlanTable
from .quantized_rows import QuantizedRows
from .score_rows import IntegerRows


class ByteRows(IntegerRows):
    """Rows of int8, on any target."""

    dtype = "int8"
    masked = MASKED_BYTE


class PackedByteRows(ByteRows):
    """The same on x86, a register tile's keys of a query at once: 11 instructions for 64 keys with
    AVX512, where widths of 32 bits take four times as many."""

    @T.inline
    def put(self, pilot: QuantizedRows, sums: T.Buffer, tile: Expr) -> None:
        for q in T.unroll(self.dot.register_queries):
            self.scores[q, T.ramp(tile * self.dot.register_keys, 1, self.dot.register_keys)] = (
                self.packed([sums[pilot.cell(q, b)] for b in range(self.dot.register_blocks)])
            )

    def packed(self, blocks: list[Expr]) -> Expr:
        """Two or four blocks of sums as bytes, in order."""
        lanes = self.dot.lanes
        pairs = [
            requantize_pair(x, y, self.multiplier[0], self.shift[0], lanes)
            for x, y in zip(blocks[::2], blocks[1::2], strict=True)
        ]
        words = T.bind(T.reinterpret(f"int32x{lanes}", pack_int16(pairs[0], pairs[-1], lanes)))
        # each 128 bits hold four keys of every block, a word a block
        order = [
            first + block for block in range(len(blocks)) for first in range(0, lanes, BLOCK_LANES)
        ]
        scores = T.reinterpret(f"int8x{self.dot.register_keys}", pick([words], order))
        return T.max(scores, splat(T.int8(-INT8_QMAX), self.dot.register_keys))


_ROWS: dict[Int8Dot, Callable[[ShadowSpec, CpuFeatures, KeyShadow, PlanTable], IntegerRows]] = {
    "widening": ByteRows,
    "pmaddwd": PackedByteRows,
    "vnni": PackedByteRows,
    "dotprod": ByteRows,
    "i8mm": ByteRows,
}
"""By the INT8 dot product: who has one of x86's has its other integer instructions too."""


def rows_to_rank(
    spec: ShadowSpec, features: CpuFeatures, keys: KeyShadow, plan: PlanTable
) -> IntegerRows:
    """The rows that a plan's scores fit, of `spec.pilot.row_dtype`, made inside a task."""
    if spec.pilot.row_dtype == "int8":
        return _ROWS[features.int8_dot](spec, features, keys, plan)
    return IntegerRows(spec, features, keys, plan)
