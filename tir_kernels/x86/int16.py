"""16-bit and 8-bit lanes on x86: what AVX2 and AVX512BW do in one instruction each.

Vectors are named by the int32 lanes of a register, `lanes`: 8 or 16. All but `multiply_high` and
`multiply_pairs` work within blocks of 128 bits, so packing puts elements out of order; unpacking
(`interleave_low`, `interleave_high`) brings them back, block by block.
"""

from __future__ import annotations

from tvm.script import tirx as T

from ..simd.shuffle import concat, pick
from ..simd.vector import Expr

_BLOCK_BYTES = 16


def _call(lanes: int, dtype: str, names: tuple[str, str], *args: Expr) -> Expr:
    """The 256-bit or the 512-bit form of an instruction."""
    avx2, avx512 = names
    name = {8: f"llvm.x86.avx2.{avx2}", 16: f"llvm.x86.avx512.{avx512}.512"}[lanes]
    return T.call_llvm_pure_intrin(dtype, name, *args)


def pack_int32(x: Expr, y: Expr, lanes: int) -> Expr:
    """Two vectors of int32 as one of int16, saturated."""
    return _call(lanes, f"int16x{2 * lanes}", ("packssdw", "packssdw"), x, y)


def pack_int16(x: Expr, y: Expr, lanes: int) -> Expr:
    """Two vectors of int16 as one of int8, saturated."""
    return _call(lanes, f"int8x{4 * lanes}", ("packsswb", "packsswb"), x, y)


def pack_uint8(x: Expr, y: Expr, lanes: int) -> Expr:
    """Two vectors of int16 as one of uint8, saturated."""
    return _call(lanes, f"uint8x{4 * lanes}", ("packuswb", "packuswb"), x, y)


def multiply_round(x: Expr, y: Expr, lanes: int) -> Expr:
    """(x * y + 2^14) >> 15 of int16."""
    return _call(lanes, f"int16x{2 * lanes}", ("pmul.hr.sw", "pmul.hr.sw"), x, y)


def multiply_high(x: Expr, y: Expr, lanes: int) -> Expr:
    """(x * y) >> 16 of uint16; int16 out."""
    return _call(lanes, f"int16x{2 * lanes}", ("pmulhu.w", "pmulhu.w"), x, y)


def multiply_pairs(x: Expr, y: Expr, lanes: int) -> Expr:
    """int16 products, neighbours added: int32."""
    return _call(lanes, f"int32x{lanes}", ("pmadd.wd", "pmaddw.d"), x, y)


def look_up(table: Expr, index: Expr, lanes: int) -> Expr:
    """table[index] of bytes; the table's 16 entries repeat in every block, 0 <= index < 16."""
    return _call(lanes, f"uint8x{4 * lanes}", ("pshuf.b", "pshuf.b"), table, index)


def in_every_block(block: Expr, lanes: int) -> Expr:
    """16 bytes, in each block of 128 bits."""
    return concat([block] * (4 * lanes // _BLOCK_BYTES), _BLOCK_BYTES)


def interleave_low(x: Expr, y: Expr, elements: int, block: int) -> Expr:
    """x0, y0, x1, y1 ... of the first half of every block; vectors of `elements`, `block` of them
    to 128 bits."""
    return _interleave(x, y, elements, block, 0)


def interleave_high(x: Expr, y: Expr, elements: int, block: int) -> Expr:
    """`interleave_low` of the second halves."""
    return _interleave(x, y, elements, block, block // 2)


def _interleave(x: Expr, y: Expr, elements: int, block: int, start: int) -> Expr:
    lanes = [
        first + start + i + from_y
        for first in range(0, elements, block)
        for i in range(block // 2)
        for from_y in (0, elements)
    ]
    return pick([x, y], lanes)
