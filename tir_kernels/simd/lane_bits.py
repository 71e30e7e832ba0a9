"""A vector of booleans as the bits of an integer, and back: what masks become where they are
counted, split or mended.

LLVM turns these bit casts into one move where the vector unit has it (AVX512's kmov, AVX2's and
SSE2's movmsk), elsewhere into a few instructions.
"""

from __future__ import annotations

from tvm import tirx
from tvm.script import tirx as T

from .vector import Expr


def bits_dtype(lanes: int) -> str:
    """The integer that holds the bits of so many lanes, 8 to 64."""
    return "uint64" if lanes > 32 else "uint32"


def lane_bits(condition: Expr, lanes: int) -> Expr:
    """Bit i = lane i of a comparison; the bits beyond are clear."""
    # `T.reinterpret` refuses booleans, which TIR counts as bytes; in LLVM they are bits
    return T.Cast(bits_dtype(lanes), tirx.call_intrin(f"uint{lanes}", _BIT_CAST, condition))


def bit_lanes(bits: Expr, lanes: int) -> Expr:
    """Lane i = bit i, the inverse of `lane_bits`."""
    return tirx.call_intrin(f"boolx{lanes}", _BIT_CAST, T.Cast(f"uint{lanes}", bits))


_BIT_CAST = "tirx.reinterpret"
