"""Asking for rows before they are needed: hardware prefetchers don't follow lists."""

from __future__ import annotations

from tvm.script import tirx as T

from .vector import Expr

_READ, _TO_L2, _DATA_CACHE = 0, 2, 1  # arguments of llvm.prefetch

_LINE_BITS = 64 * 8
"""Of a cache line."""


@T.inline
def prefetch_row(rows: T.Buffer, row: Expr, elements: int, first: Expr = 0) -> None:
    """Ask for `elements` of `rows[row]` from the `first` on, rows (any, any), a cache line at a
    time."""
    line_elements = T.meta_var(_LINE_BITS // rows.dtype.bits)
    for line in T.unroll(T.ceildiv(elements, line_elements)):
        T.evaluate(
            T.call_llvm_intrin(
                "void",
                "llvm.prefetch.p0",
                T.address_of(rows[row, first + line * line_elements]),
                _READ,
                _TO_L2,
                _DATA_CACHE,
            )
        )
