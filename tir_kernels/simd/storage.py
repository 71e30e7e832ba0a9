"""Between storage and arithmetic: float16 is loaded, stored and converted, never computed with.

Expression builders as in `vector`. Conversions are single instructions where the target has them:
vcvtph2ps and vcvtps2ph (x86 with F16C or AVX512), fcvtl and fcvtn (NEON). Other targets, plain
x86-64 above all, call a function for each element.
"""

from __future__ import annotations

from tvm.script import tirx as T

from .vector import Expr, float32_dtype


def as_float32(x: Expr) -> Expr:
    """`x`, float16 or float32 in any number of lanes, as float32; exact."""
    dtype = x.ty.dtype
    return T.Cast(float32_dtype(dtype.lanes), x) if dtype.bits == 16 else x


def as_stored(x: Expr, dtype: str) -> Expr:
    """float32 `x` as what memory of `dtype` holds: float16, halves to even, or `x` itself."""
    if dtype == "float32":
        return x
    lanes = x.ty.dtype.lanes
    return T.Cast(dtype if lanes == 1 else f"{dtype}x{lanes}", x)
