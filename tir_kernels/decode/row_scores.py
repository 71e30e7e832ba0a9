"""The pilot of one new token: its query's INT8 scores against the shadow in the pages."""

from __future__ import annotations

from tvm.script import tirx as T

from ..features import CpuFeatures
from ..pilot.pilot_rows import AbsoluteMaximum, PilotRow
from ..pilot.plan_table import PlanTable
from ..pilot.quantize import nearest_bucket
from ..pilot.scores import PilotQueries
from ..pilot.shadow_rows import shadow_column, shadow_row
from ..shadow.sparse_tile import sum_vectors
from ..simd.prefetch import prefetch_row
from ..simd.vector import Expr, splat
from ..spec import ShadowSpec
from .row_dot import row_dot_method

_AHEAD_PAGES = 2
"""How far ahead of its use a page's shadow is prefetched: hardware prefetchers stop where a page
ends."""


@T.meta_class
class RowScores:
    """One query, quantized, and its scores. Made inside the task."""

    def __init__(self, spec: ShadowSpec, features: CpuFeatures) -> None:
        self.spec = spec.attention
        self.quant_max = spec.pilot.quant_max
        self.dot = row_dot_method(features, spec.attention.head_dim)
        self.step_elements = self.dot.lanes * self.dot.group
        view = PilotRow(
            spec.attention.head_dim,
            features.lanes,
            centered=False,  # a mean taken from queries would change the order
            rotated=spec.pilot.hadamard_rotation,
        )
        self.largest = AbsoluteMaximum(view)
        self.query = PilotQueries(spec.attention.head_dim, self.dot, view, self.quant_max)

    @T.inline
    def load(self, q_rows: T.Buffer, row: Expr, plan: PlanTable, head: Expr) -> None:
        """Quantize `q_rows[row]` of q_rows (any, D) with the scale nearest to its own."""
        self.largest.clear()
        self.largest.include(q_rows, row)
        bucket = T.bind(nearest_bucket(self.largest.value(), plan.q_axis(head), self.quant_max))
        self.query.quantize(q_rows, row, plan.q_scales[head, bucket], 0)

    @T.inline
    def score(
        self,
        cache_rows: T.Buffer,
        page_values: T.Buffer,
        first_page: Expr,
        num_pages: Expr,
        kv_head: Expr,
        scores: T.Buffer,
    ) -> None:
        """`scores[0, i]` = the score of slot i of the sequence's pages, scores (1, any) int32;
        slots without a key give any number."""
        column = T.bind(shadow_column(kv_head, self.spec))
        for p in range(num_pages):
            row = T.bind(shadow_row(page_values[first_page + p], kv_head, 0, self.spec))
            later = T.bind(T.min(p + _AHEAD_PAGES, num_pages - 1))
            ahead = T.bind(shadow_row(page_values[first_page + later], kv_head, 0, self.spec))
            for slot in T.unroll(self.spec.page_size):
                prefetch_row(
                    cache_rows,
                    ahead + slot,
                    self.spec.head_dim // self.spec.element_bytes,
                    column,
                )
            self.score_page(cache_rows, row, column, p * self.spec.page_size, scores)

    def score_page(
        self, cache_rows: T.Buffer, row: Expr, column: Expr, first: Expr, scores: T.Buffer
    ) -> None:
        """Plain Python, run while the kernel is parsed: a page's slots, `lanes` at a time."""
        lanes = self.dot.lanes
        for part in range(0, self.spec.page_size, lanes):
            sums = [self._product(cache_rows, row + part + i, column) for i in range(lanes)]
            T.buffer_store(scores, sum_vectors(sums, lanes), [0, T.ramp(first + part, 1, lanes)])

    def _product(self, cache_rows: T.Buffer, row: Expr, column: Expr) -> Expr:
        """The lanes of one key's score, not added up."""
        elements = self.step_elements // self.spec.element_bytes
        sums = splat(T.int32(0), self.dot.lanes)
        for step in range(self.spec.head_dim // self.step_elements):
            at = column + step * elements
            stored = cache_rows[row, at if elements == 1 else T.ramp(at, 1, elements)]
            sums = T.bind(
                self.dot.accumulate(
                    sums,
                    T.reinterpret(f"int8x{self.step_elements}", stored),
                    self.query.q8[0, T.ramp(step * self.step_elements, 1, self.step_elements)],
                )
            )
        return sums
