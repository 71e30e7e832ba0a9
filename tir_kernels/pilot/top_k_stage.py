"""The standalone stage of top-k: the selection of every row, limited and masked as asked for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from tvm import tirx
from tvm.script import tirx as T

from ..constants import MASKED_BYTE, MASKED_SCORE
from ..features import CpuFeatures
from ..simd.vector import Expr
from .row_selector import row_selector
from .top_k import row_multiple


def top_k(
    features: CpuFeatures, masked: bool = False, dtype: Literal["int32", "int8"] = "int32"
) -> tirx.PrimFunc:
    """The standalone stage: the selection of every row.

    Variables: `scores` (m, n) of `dtype`, above MASKED_SCORE or MASKED_BYTE; `limits` (m,) int32,
    row i sees the positions below limits[i] (a causal mask; n = all); with `masked` then `mask`
    (m, n) uint8, nonzero = visible; `indices` (m, c) int32, c >= min(k, n) + index_slack,
    ascending, entries beyond the count are undefined; `counts` (m,) int32; `k` int32, 0 or more.
    """
    multiple = row_multiple(features)
    hidden = tirx.IntImm(dtype, {"int32": MASKED_SCORE, "int8": MASKED_BYTE}[dtype])

    @T.inline
    def select_rows(
        scores: T.Buffer,
        limits: T.Buffer,
        is_visible: Callable[[Expr, Expr], Expr],
        indices: T.Buffer,
        counts: T.Buffer,
        k: Expr,
        num_rows: Expr,
        num_positions: Expr,
    ) -> None:
        selector = row_selector(features, dtype)
        selector.start()
        padded = T.bind(T.ceildiv(num_positions, multiple) * multiple)
        row_scores = T.alloc_buffer((1, padded), dtype)
        visible = T.alloc_buffer((1,), "int32")
        for i in range(num_rows):
            visible[0] = 0
            limit = T.bind(T.min(limits[i], num_positions))
            for j in range(padded):
                row_scores[0, j] = hidden
            for j in range(limit):
                if is_visible(i, j):
                    row_scores[0, j] = scores[i, j]
                    visible[0] = visible[0] + 1
            selector.select(
                row_scores,
                0,
                padded // selector.vector_scores,
                visible[0],
                k,
                indices,
                i,
                counts,
            )

    if masked:

        @T.prim_func(s_tir=True)
        def shadowattn_top_k_masked(
            var_scores: T.handle,
            var_limits: T.handle,
            var_mask: T.handle,
            var_indices: T.handle,
            var_counts: T.handle,
            k: T.int32,
        ) -> None:
            T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
            num_rows, num_positions, capacity = T.int32(), T.int32(), T.int32()
            scores = T.match_buffer(var_scores, (num_rows, num_positions), dtype)
            limits = T.match_buffer(var_limits, (num_rows,), "int32")
            mask = T.match_buffer(var_mask, (num_rows, num_positions), "uint8")
            indices = T.match_buffer(var_indices, (num_rows, capacity), "int32")
            counts = T.match_buffer(var_counts, (num_rows,), "int32")
            select_rows(
                scores,
                limits,
                lambda i, j: mask[i, j] != T.uint8(0),
                indices,
                counts,
                k,
                num_rows,
                num_positions,
            )

        return shadowattn_top_k_masked

    @T.prim_func(s_tir=True)
    def shadowattn_top_k(
        var_scores: T.handle,
        var_limits: T.handle,
        var_indices: T.handle,
        var_counts: T.handle,
        k: T.int32,
    ) -> None:
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
        num_rows, num_positions, capacity = T.int32(), T.int32(), T.int32()
        scores = T.match_buffer(var_scores, (num_rows, num_positions), dtype)
        limits = T.match_buffer(var_limits, (num_rows,), "int32")
        indices = T.match_buffer(var_indices, (num_rows, capacity), "int32")
        counts = T.match_buffer(var_counts, (num_rows,), "int32")
        select_rows(
            scores, limits, lambda i, j: T.bool(True), indices, counts, k, num_rows, num_positions
        )

    return shadowattn_top_k
