"""Exact INT8 dot products on x86: AVX512-VNNI's vpdpbusd and, where it is missing, vpmaddwd.

`vpmaddubsw`, the usual AVX2 choice, sums pairs of u8 x s8 products in int16 with saturation, so it
is not exact for shifted keys (255 * 127 * 2 overflows). The exact form of it, |q| times the keys
with q's sign, needs a `vpsignb` and a `vpmaddwd` by ones besides; widening the keys to int16 and
multiplying once costs as many instructions and is simpler.
"""

from __future__ import annotations

from collections.abc import Callable

from tvm.script import tirx as T

from ..simd.vector import Expr


def pair_products(lanes: int) -> Callable[[Expr, Expr, Expr], Expr]:
    """acc + q.k by vpmaddwd: each int32 lane gains the products of a pair of elements.

    |q|, |k| <= 127, so a pair's sum is below 2^15 and an int32 holds any head's sum.
    """
    intrinsic = {8: "llvm.x86.avx2.pmadd.wd", 16: "llvm.x86.avx512.pmaddw.d.512"}[lanes]

    def accumulate(acc: Expr, keys: Expr, query: Expr) -> Expr:
        return acc + T.call_llvm_pure_intrin(
            f"int32x{lanes}",
            intrinsic,
            T.Cast(f"int16x{2 * lanes}", keys),
            T.reinterpret(f"int16x{2 * lanes}", query),
        )

    return accumulate


def vnni(acc: Expr, keys: Expr, query: Expr) -> Expr:
    """acc + q.(k + 128) by vpdpbusd: unsigned keys, signed query, four elements a lane.

    The caller starts the accumulator at -128 * sum(q), which makes the sum exact.
    """
    return T.call_llvm_pure_intrin(
        "int32x16",
        "llvm.x86.avx512.vpdpbusd.512",
        acc,
        T.reinterpret("int8x64", keys),
        T.reinterpret("int8x64", query),
    )
