"""Vector expressions shared by the kernels: wide loads, horizontal sums, a polynomial 2^x.

These are expression builders called while TVMScript is parsed; each returns a TIR expression of
`lanes` lanes. LLVM contracts `a * b + c` to a fused multiply-add where the target has one.
"""

from __future__ import annotations

from typing import Any

from tvm import tirx
from tvm.script import tirx as T

# 2^f on [-0.5, 0.5], Chebyshev interpolation of degree 6: relative error below 2.6e-9 in exact
# arithmetic, so float32 rounding dominates (about 1e-7). Highest power first.
_EXP2_POLYNOMIAL = (
    0.00015461444724808513,
    0.0013400428177711937,
    0.00961805667843204,
    0.05550327226669895,
    0.24022650922289554,
    0.6931472067028329,
    1.0,
)
_EXP2_MIN = -126.0  # below it the result would be denormal; there we return 2^-126, about 1e-38
_EXP2_MAX = 127.0
_MANTISSA_BITS = 23
_EXPONENT_BIAS = 127

Expr = Any  # a TIR expression; TVM ships no types


def splat(value: Expr, lanes: int) -> Expr:
    """`value` in every lane; a scalar stays a scalar when `lanes` is 1."""
    return value if lanes == 1 else T.broadcast(value, lanes)


def const_f32(value: float, lanes: int) -> Expr:
    """A float32 constant in every lane."""
    return splat(T.float32(value), lanes)


def float32_dtype(lanes: int) -> str:
    return "float32" if lanes == 1 else f"float32x{lanes}"


def int32_dtype(lanes: int) -> str:
    return "int32" if lanes == 1 else f"int32x{lanes}"


def exp2(x: Expr, lanes: int) -> Expr:
    """2^x for float32 lanes, relative error about 1e-7 on [-126, 127]; x is clamped to that range.

    Integer part by rounding, fraction by polynomial, joined in the exponent bits: no libm call,
    about 0.3 ns per element where `T.exp2` costs 2 ns or more.
    """
    clamped = T.min(T.max(x, const_f32(_EXP2_MIN, lanes)), const_f32(_EXP2_MAX, lanes))
    # floor(x + 0.5) keeps the fraction in [-0.5, 0.5) and is one instruction on every target
    whole = T.floor(clamped + const_f32(0.5, lanes))
    fraction = clamped - whole
    poly = const_f32(_EXP2_POLYNOMIAL[0], lanes)
    for coefficient in _EXP2_POLYNOMIAL[1:]:
        poly = poly * fraction + const_f32(coefficient, lanes)
    exponent = T.shift_left(
        T.Cast(int32_dtype(lanes), whole) + splat(T.int32(_EXPONENT_BIAS), lanes),
        splat(T.int32(_MANTISSA_BITS), lanes),
    )
    return T.reinterpret(float32_dtype(lanes), exponent) * poly


def sum_lanes(x: Expr, lanes: int) -> Expr:
    """Sum over the lanes of a float32 vector, halves added to halves; `lanes` is a power of two.

    `llvm.vector.reduce.fadd` would add the lanes one after the other, in four times the time.
    """
    if lanes == 1:
        return x
    whole = tirx.Var("whole", float32_dtype(lanes))
    half = range(lanes // 2)
    low = tirx.Shuffle([whole], [tirx.IntImm("int32", lane) for lane in half])
    high = tirx.Shuffle([whole], [tirx.IntImm("int32", lanes // 2 + lane) for lane in half])
    return tirx.Let(whole, x, sum_lanes(low + high, lanes // 2))


def max_lanes(x: Expr, lanes: int) -> Expr:
    """Largest lane of a float32 vector without NaNs."""
    if lanes == 1:
        return x
    return T.call_llvm_pure_intrin("float32", f"llvm.vector.reduce.fmax.v{lanes}f32", x)


def sum_lanes_i32(x: Expr, lanes: int) -> Expr:
    """Sum over the lanes of an int32 vector."""
    if lanes == 1:
        return x
    return T.call_llvm_pure_intrin("int32", f"llvm.vector.reduce.add.v{lanes}i32", x)


def max_lanes_i32(x: Expr, lanes: int) -> Expr:
    """Largest lane of an int32 vector."""
    if lanes == 1:
        return x
    return T.call_llvm_pure_intrin("int32", f"llvm.vector.reduce.smax.v{lanes}i32", x)


def ordered_bits(x: Expr, lanes: int) -> Expr:
    """float32 lanes, none of them NaN or -0, as int32 lanes of the same order; above -2^31.

    Positive floats are ordered as their bits are; of negative ones all bits but the sign turn.
    """
    bits = T.bind(T.reinterpret(int32_dtype(lanes), x))
    turned = T.shift_right(bits, splat(T.int32(31), lanes)) & splat(T.int32(2**31 - 1), lanes)
    return bits ^ turned
