"""Exact INT8 dot products on aarch64: the dot-product extension's sdot, and smmla of the extension
for INT8 matrices, which makes twice as many products."""

from __future__ import annotations

from tvm.script import tirx as T

from ..simd.vector import Expr


def sdot(acc: Expr, keys: Expr, query: Expr) -> Expr:
    """acc + q.k, both signed, four elements a lane."""
    return T.call_llvm_pure_intrin(
        "int32x4",
        "llvm.aarch64.neon.sdot.v4i32.v16i8",
        acc,
        keys,
        T.reinterpret("int8x16", query),
    )


def smmla(acc: Expr, keys: Expr, queries: Expr) -> Expr:
    """acc + q.k of two queries and two keys, all signed, eight elements of each, one after the
    other; the four sums are those of the first query, then of the second."""
    return T.call_llvm_pure_intrin(
        "int32x4", "llvm.aarch64.neon.smmla.v4i32.v16i8", acc, queries, keys
    )
