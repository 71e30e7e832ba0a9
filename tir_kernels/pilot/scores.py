"""The pilot: exact INT32 scores of INT8 queries against INT8 keys, no mask and no softmax.

The order of these scores is all that the next stage needs: softmax is monotonic, and masked
positions are skipped there.

Source: "Dynamic Sparse Attention on Mobile SoCs", the pilot of the online stage.
"""

from __future__ import annotations

from tvm import tirx
from tvm.script import tirx as T

from ..constants import INT8_QMAX
from ..features import CpuFeatures
from ..simd.storage import as_float32
from ..simd.vector import Expr, splat, sum_lanes_i32
from ..spec import AttentionSpec
from .int8_dot import Int8DotMethod, int8_dot_method
from .pilot_rows import AbsoluteMaximum, PilotRow
from .quantize import BUCKETS_PER_AXIS, nearest_bucket, quantize_lanes
from .quantized_rows import QuantizedRows


@T.meta_class
class PilotQueries(QuantizedRows):
    """The queries of one register tile, quantized: rows of `head_dim` elements."""

    def __init__(
        self, head_dim: int, dot: Int8DotMethod, view: PilotRow, quant_max: int = INT8_QMAX
    ) -> None:
        super().__init__(head_dim, dot)
        self.view = view
        self.quant_max = quant_max
        self.lanes = view.lanes
        self.vectors = view.vectors

    @T.inline
    def quantize(self, rows: T.Buffer, row: Expr, scale: Expr, query: Expr) -> None:
        """Query `query` of the tile = `rows[row]` of rows (any, head_dim)."""
        if self.view.changed:
            self.view.load(rows, row, rows, 0)
            self.quantize_stored(self.view.row, 0, scale, query)
        else:
            self.quantize_stored(rows, row, scale, query)

    @T.inline
    def quantize_stored(self, rows: T.Buffer, row: Expr, scale: Expr, query: Expr) -> None:
        total = T.alloc_buffer((self.lanes,), "int32")
        quantized = T.alloc_buffer((self.lanes,), "int32")
        total[T.ramp(0, 1, self.lanes)] = splat(T.int32(0), self.lanes)
        for j in T.unroll(self.vectors):
            quantized[T.ramp(0, 1, self.lanes)] = quantize_lanes(
                as_float32(rows[row, T.ramp(j * self.lanes, 1, self.lanes)]),
                scale,
                self.lanes,
                self.quant_max,
            )
            self.store(query, j * self.lanes, quantized[T.ramp(0, 1, self.lanes)], self.lanes)
            total[T.ramp(0, 1, self.lanes)] = (
                total[T.ramp(0, 1, self.lanes)] + quantized[T.ramp(0, 1, self.lanes)]
            )
        self.bias[query] = -self.dot.key_offset * sum_lanes_i32(
            total[T.ramp(0, 1, self.lanes)], self.lanes
        )


@T.meta_class
class RowSink:
    """Keeps scores as they are, in rows of `scores` (any, keys) int32 from `first_row` on."""

    def __init__(self, scores: T.Buffer, first_row: Expr, dot: Int8DotMethod) -> None:
        self.scores = scores
        self.first_row = first_row
        self.dot = dot

    def start(self, query: Expr) -> Expr:
        return T.int32(0)

    def positions(self, tile: Expr, block: Expr) -> Expr:
        """Where a block of keys lies in a row."""
        return T.ramp(tile * self.dot.register_keys + block * self.dot.lanes, 1, self.dot.lanes)

    @T.inline
    def put(self, pilot: QuantizedRows, sums: T.Buffer, tile: Expr) -> None:
        for q in T.unroll(self.dot.register_queries):
            for b in T.unroll(self.dot.register_blocks):
                self.scores[self.first_row + q, self.positions(tile, b)] = sums[pilot.cell(q, b)]


def pilot_scores(
    spec: AttentionSpec, features: CpuFeatures, quant_max: int = INT8_QMAX
) -> tirx.PrimFunc:
    """The standalone stage: one head's queries, measured and quantized, against its packed keys.

    Variables: `q` (m, Hq, D), dtype of the spec, of which `head` is taken; `scales` (3,) float32,
    ascending; `packed` as `quantize_keys` writes it, a multiple of `register_blocks` blocks;
    outputs `scores` (padded m, padded n) int32, m rounded up to `register_queries` and all of the
    packed keys, and `chosen` (1,) float32, the scale used. Padding queries repeat the last; padding
    keys score 0.
    """
    dot = int8_dot_method(features, quant_max)
    dim, heads, lanes = spec.head_dim, spec.num_q_heads, features.lanes

    @T.prim_func(s_tir=True)
    def shadowattn_pilot_scores(
        var_q: T.handle,  # (m, Hq, D)
        var_scales: T.handle,  # (3,)
        var_packed: T.handle,  # (blocks, D / group, lanes * group)
        var_scores: T.handle,  # (padded m, padded n)
        var_chosen: T.handle,  # (1,)
        head: T.int32,
    ) -> None:
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
        num_queries, num_blocks = T.int32(), T.int32()
        padded_queries, padded_keys = T.int32(), T.int32()
        q = T.match_buffer(var_q, (num_queries, heads, dim), spec.dtype)
        scales = T.match_buffer(var_scales, (BUCKETS_PER_AXIS,), "float32")
        packed = T.match_buffer(
            var_packed, (num_blocks, dim // dot.group, dot.lanes * dot.group), dot.key_dtype
        )
        scores = T.match_buffer(var_scores, (padded_queries, padded_keys), "int32")
        chosen = T.match_buffer(var_chosen, (1,), "float32")
        q_rows = T.decl_buffer((num_queries * heads, dim), spec.dtype, data=q.data)
        view = PilotRow(dim, lanes, centered=False, rotated=False)
        largest = AbsoluteMaximum(view)
        queries = PilotQueries(dim, dot, view, quant_max)
        largest.clear()
        for i in range(num_queries):
            largest.include(q_rows, i * heads + head)
        chosen[0] = scales[
            nearest_bucket(largest.value(), [scales[0], scales[1], scales[2]], quant_max)
        ]
        for tile in range(padded_queries // dot.register_queries):
            for i in range(dot.register_queries):
                query = T.bind(T.min(tile * dot.register_queries + i, num_queries - 1))
                queries.quantize(q_rows, query * heads + head, chosen[0], i)
            rows = RowSink(scores, tile * dot.register_queries, dot)
            queries.score(packed, 0, num_blocks // dot.register_blocks, rows)

    return shadowattn_pilot_scores
