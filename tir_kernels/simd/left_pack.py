"""Appending to a list, ascending, the positions of a mask's set bits.

What comes out is the same everywhere; how many are written at a time depends on the vector unit.
Every way may write up to `lanes` entries past the last one appended.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm.script import tirx as T

from ..features import CpuFeatures, Isa
from .lane_bits import bit_lanes
from .vector import Expr, int32_dtype, splat

_BYTE_LANES = 8
_BYTE_MASKS = 256


@T.meta_class
class TablePack:
    """Without a compress instruction: a 256-entry table turns a mask of eight lanes into the
    permutation that packs them. `start` computes the table (1 to 2 µs), once per task, or once for
    all tasks that are made `like` one."""

    def __init__(self, lanes: int, like: TablePack | None = None) -> None:
        assert lanes == _BYTE_LANES, "the table serves masks of one byte"
        self.lanes = lanes
        self.table: T.Buffer = (
            T.alloc_buffer((_BYTE_MASKS, _BYTE_LANES), "int32") if like is None else like.table
        )
        self.count = T.alloc_buffer((1,), "int32")

    @T.inline
    def start(self) -> None:
        for mask in range(_BYTE_MASKS):
            self.count[0] = 0
            for bit in T.unroll(_BYTE_LANES):
                # the entry of a clear bit is overwritten by the next set one
                self.table[mask, T.min(self.count[0], _BYTE_LANES - 1)] = bit
                self.count[0] = self.count[0] + (T.shift_right(mask, bit) & 1)

    @T.inline
    def append(self, bits: Expr, first: Expr, indices: T.Buffer, out_row: Expr) -> None:
        indices[out_row, T.ramp(self.count[0], 1, self.lanes)] = self.table[
            T.Cast("int32", bits), T.ramp(0, 1, self.lanes)
        ] + splat(first, self.lanes)
        self.count[0] = self.count[0] + T.Cast("int32", T.popcount(bits))


@T.meta_class
class CompressPack:
    """AVX512 compresses in a register, then stores the whole vector. (The form that compresses
    into memory, `llvm.masked.compressstore`, is microcoded on Zen 4 and several times slower.)"""

    def __init__(self, lanes: int, like: CompressPack | None = None) -> None:
        self.lanes = lanes
        self.count = T.alloc_buffer((1,), "int32")

    @T.inline
    def start(self) -> None:
        self.count[0] = 0

    @T.inline
    def append(self, bits: Expr, first: Expr, indices: T.Buffer, out_row: Expr) -> None:
        indices[out_row, T.ramp(self.count[0], 1, self.lanes)] = T.call_llvm_pure_intrin(
            int32_dtype(self.lanes),
            "llvm.experimental.vector.compress",
            T.ramp(first, 1, self.lanes),
            bit_lanes(bits, self.lanes),
            splat(T.int32(0), self.lanes),
        )
        self.count[0] = self.count[0] + T.Cast("int32", T.popcount(bits))


_PACKS: dict[Isa, Callable[[int, Any], Any]] = {
    "generic": TablePack,
    "avx2": TablePack,
    "avx512": CompressPack,
    "neon": TablePack,
}


def pack_lanes(features: CpuFeatures) -> int:
    """Bits that a vector unit takes at a time."""
    return max(features.lanes, _BYTE_LANES)


def left_pack(features: CpuFeatures, like: Any = None) -> Any:
    """State and steps for a vector unit, made inside the PrimFunc, once per task.

    `start()` comes first, once. `append(bits, first, indices, out_row)` appends first + i for each
    set bit i of `bits`, uint32, of which the lowest `pack_lanes` may be set (see `lane_bits`), to
    `indices[out_row]` at `count[0]`, which it advances; the caller sets `count[0]`. `indices` is
    2-D, int32. One made `like` another, which was started, isn't started itself.
    """
    return _PACKS[features.isa](pack_lanes(features), like)
