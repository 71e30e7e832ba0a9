"""Asking for rows before they are needed: hardware prefetchers don't follow lists."""

from __future__ import annotations

from tvm.script import tirx as T

from .vector import Expr

_READ, _TO_L2, _DATA_CACHE = 0, 2, 1  # arguments of llvm.prefetch

_LINE_FLOATS = 16
"""float32 elements of a cache line."""


@T.inline
def prefetch_row(rows: T.Buffer, row: Expr, elements: int, first: Expr = 0) -> None:
    """Ask for `elements` of `rows[row]` from the `first` on, rows (any, any) float32, a cache line
    at a time."""
    for line in T.unroll(T.ceildiv(elements, _LINE_FLOATS)):
        T.evaluate(
            T.call_llvm_intrin(
                "void",
                "llvm.prefetch.p0",
                T.address_of(rows[row, first + line * _LINE_FLOATS]),
                _READ,
                _TO_L2,
                _DATA_CACHE,
            )
        )
