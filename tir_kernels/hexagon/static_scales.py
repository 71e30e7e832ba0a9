"""A plan's static scales as code: which head a launch is about picks its constants.

TVM 0.26 has no constant arrays in PrimFuncs, so the table is a tree of branches on the head's
number whose leaves store constants: nine comparisons for 270 heads.
"""

from __future__ import annotations

from collections.abc import Sequence

from tvm import tirx
from tvm.script import tirx as T

from ..simd.vector import Expr

Scales = tuple[int, int, int]
"""Multiplier and shift of the requantization, step of the pooling."""


def static_scales(table: Sequence[tuple[int, ...]], num_heads: int) -> tirx.PrimFunc:
    """The stage of a graph that makes its scales static.

    Variables: `heads` (num_heads,) int32, places in `table`; output `scales` (num_heads, fields of
    the table) int32.
    Numbers beyond the table take its nearest end: nothing is read out of bounds.
    """
    table = tuple(table)
    fields = len(table[0])

    @T.prim_func(s_tir=True)
    def shadowattn_static_scales(var_heads: T.handle, var_scales: T.handle) -> None:
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
        heads = T.match_buffer(var_heads, (num_heads,), "int32")
        scales = T.match_buffer(var_scales, (num_heads, fields), "int32")
        for i in range(num_heads):
            head = T.bind(heads[i])
            _store(scales, i, head, table, 0)

    return shadowattn_static_scales


def keep_ratios(ratios: Sequence[int], num_heads: int) -> tirx.PrimFunc:
    """The same for keep ratios; output (num_heads, 1) int32."""
    stage = static_scales([(ratio,) for ratio in ratios], num_heads)
    return stage.with_attr("global_symbol", "shadowattn_keep_ratios")


def _store(
    scales: T.Buffer, row: Expr, head: Expr, table: tuple[tuple[int, ...], ...], first: int
) -> None:
    """Plain Python: the branches for heads `first` and on, which `table` holds."""
    if len(set(table)) == 1:
        for field, value in enumerate(table[0]):
            T.buffer_store(scales, T.int32(value), [row, field])
        return
    middle = len(table) // 2
    with T.If(head < first + middle):
        with T.Then():
            _store(scales, row, head, table[:middle], first)
        with T.Else():
            _store(scales, row, head, table[middle:], first + middle)
