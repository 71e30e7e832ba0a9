"""Exact INT8 dot products on x86: AVX512-VNNI's vpdpbusd and, where it is missing, vpmaddwd.

`vpmaddubsw`, the usual AVX2 choice, sums pairs of u8 x s8 products in int16 with saturation, so it
is not exact for shifted keys of 8 bits (255 * 127 * 2 overflows). The exact form of it, |q| times
the keys with q's sign, needs a `vpsignb` and a `vpmaddwd` by ones besides; widening the keys to
int16 and multiplying once costs as many instructions and is simpler. With quantized values of 7
bits or less pairs are exact, and with 6 bits eight of them add up in int16 before they must be
widened: nearly half the instructions.
"""

from __future__ import annotations

from collections.abc import Callable

from tvm.script import tirx as T

from ..simd.vector import Expr, splat

_PMADDWD = {8: "llvm.x86.avx2.pmadd.wd", 16: "llvm.x86.avx512.pmaddw.d.512"}
_PMADDUBSW = {8: "llvm.x86.avx2.pmadd.ub.sw", 16: "llvm.x86.avx512.pmaddubs.w.512"}


def pair_products(lanes: int) -> Callable[[Expr, Expr, Expr], Expr]:
    """acc + q.k by vpmaddwd: each int32 lane gains the products of a pair of elements.

    |q|, |k| <= 127, so a pair's sum is below 2^15 and an int32 holds any head's sum.
    """

    def accumulate(acc: Expr, keys: Expr, query: Expr) -> Expr:
        return acc + T.call_llvm_pure_intrin(
            f"int32x{lanes}",
            _PMADDWD[lanes],
            T.Cast(f"int16x{2 * lanes}", keys),
            T.reinterpret(f"int16x{2 * lanes}", query),
        )

    return accumulate


def byte_pair_products(lanes: int) -> Callable[[Expr, Expr], Expr]:
    """k.q by vpmaddubsw: each int16 is the sum of two products, unsigned keys and signed queries.

    Exact where no such sum exceeds 2^15 - 1: the instruction saturates.
    """

    def products(keys: Expr, query: Expr) -> Expr:
        return T.call_llvm_pure_intrin(
            f"int16x{2 * lanes}",
            _PMADDUBSW[lanes],
            T.reinterpret(f"int8x{4 * lanes}", keys),
            T.reinterpret(f"int8x{4 * lanes}", query),
        )

    return products


def pair_sums(lanes: int) -> Callable[[Expr], Expr]:
    """Neighbouring int16 as int32 sums, by vpmaddwd with ones."""

    def sums(pairs: Expr) -> Expr:
        ones = splat(T.int16(1), 2 * lanes)
        return T.call_llvm_pure_intrin(f"int32x{lanes}", _PMADDWD[lanes], pairs, ones)

    return sums


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
