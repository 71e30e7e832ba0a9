"""Exact INT8 dot products on aarch64: the dot-product extension's sdot."""

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
