"""The pilot: exact INT32 scores of INT8 queries against INT8 keys, no mask and no softmax.

The order of these scores is all that the next stage needs: softmax is monotonic, and masked
positions are skipped there.

Source: "Dynamic Sparse Attention on Mobile SoCs", the pilot of the online stage.
"""

from __future__ import annotations

from typing import Protocol

from tvm import tirx
from tvm.script import tirx as T

from ..constants import INT8_QMAX
from ..features import CpuFeatures
from ..simd.vector import Expr, splat, sum_lanes_i32
from ..spec import AttentionSpec
from .int8_dot import Int8DotMethod, NarrowSums, int8_dot_method
from .pilot_rows import AbsoluteMaximum, PilotRow
from .quantize import BUCKETS_PER_AXIS, nearest_bucket, quantize_lanes


class ScoreSink(Protocol):
    """Where a register tile's scores go."""

    def start(self, query: Expr) -> Expr:
        """What is added to every score of a query of the tile; an int32 scalar."""

    def put(self, pilot: PilotQueries, sums: T.Buffer, tile: Expr) -> None:
        """Take the scores against the `tile`-th `register_keys` keys: query q and block b of keys
        lie at `sums[pilot.cell(q, b)]`, int32. An inline."""


@T.meta_class
class PilotQueries:
    """The queries of one register tile, quantized, and their scores.

    Attributes
    ----------
    q8 : (register_queries, head_dim) in the dot method's query type.
    bias : (register_queries,) int32, where each query's sums start: it cancels the key offset.
    """

    def __init__(
        self, head_dim: int, dot: Int8DotMethod, view: PilotRow, quant_max: int = INT8_QMAX
    ) -> None:
        self.dot = dot
        self.view = view
        self.quant_max = quant_max
        self.lanes = view.lanes
        self.vectors = view.vectors
        self.steps = head_dim // dot.group
        self.q8 = T.alloc_buffer((dot.register_queries, head_dim), dot.query_dtype)
        self.bias = T.alloc_buffer((dot.register_queries,), "int32")

    def word(self, query: Expr, step: Expr) -> Expr:
        """What one step takes from a query, in every lane."""
        if self.dot.group == 1:
            return splat(self.q8[query, step], self.dot.lanes)
        elements = self.q8[query, T.ramp(step * self.dot.group, 1, self.dot.group)]
        return splat(T.reinterpret("int32", elements), self.dot.lanes)

    def cell(self, query: Expr, block: Expr) -> Expr:
        """The element indices of one accumulator of the register tile."""
        return T.ramp(
            (query * self.dot.register_blocks + block) * self.dot.lanes, 1, self.dot.lanes
        )

    @T.inline
    def quantize(self, rows: T.Buffer, row: Expr, scale: Expr, query: Expr) -> None:
        """Query `query` of the tile = `rows[row]` of rows (any, head_dim) float32."""
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
                rows[row, T.ramp(j * self.lanes, 1, self.lanes)],
                scale,
                self.lanes,
                self.quant_max,
            )
            self.q8[query, T.ramp(j * self.lanes, 1, self.lanes)] = T.Cast(
                f"{self.dot.query_dtype}x{self.lanes}", quantized[T.ramp(0, 1, self.lanes)]
            )
            total[T.ramp(0, 1, self.lanes)] = (
                total[T.ramp(0, 1, self.lanes)] + quantized[T.ramp(0, 1, self.lanes)]
            )
        self.bias[query] = -self.dot.key_offset * sum_lanes_i32(
            total[T.ramp(0, 1, self.lanes)], self.lanes
        )

    @T.inline
    def score(self, packed: T.Buffer, first_block: Expr, num_tiles: Expr, sink: ScoreSink) -> None:
        """Hand to `sink` the tile's queries against the keys of `packed` from `first_block` on."""
        for tile in range(num_tiles):
            acc = T.alloc_buffer((self.dot.register_scores,), "int32")
            for q in T.unroll(self.dot.register_queries):
                for b in T.unroll(self.dot.register_blocks):
                    acc[self.cell(q, b)] = splat(self.bias[q] + sink.start(q), self.dot.lanes)
            first = T.bind(first_block + tile * self.dot.register_blocks)
            if self.dot.narrow is None:
                self.add_products(acc, packed, first)
            else:
                self.add_narrow_sums(self.dot.narrow, acc, packed, first)
            sink.put(self, acc, tile)

    def keys(self, packed: T.Buffer, block: Expr, step: Expr) -> Expr:
        """What one step takes from a block of keys."""
        return packed[block, step, T.ramp(0, 1, self.dot.lanes * self.dot.group)]

    @T.inline
    def add_products(self, acc: T.Buffer, packed: T.Buffer, first: Expr) -> None:
        """`acc` += the queries times the blocks of keys from the `first`-th on."""
        for step in range(self.steps):
            # a query's word is used up before the next one is loaded: registers are short
            for q in T.unroll(self.dot.register_queries):
                for b in T.unroll(self.dot.register_blocks):
                    acc[self.cell(q, b)] = self.dot.accumulate(
                        acc[self.cell(q, b)],
                        self.keys(packed, first + b, step),
                        self.word(q, step),
                    )

    @T.inline
    def add_narrow_sums(
        self, narrow: NarrowSums, acc: T.Buffer, packed: T.Buffer, first: Expr
    ) -> None:
        """The same, with as many steps as fit in 16 bits between two additions to `acc`."""
        part_steps = T.meta_var(narrow.steps(self.steps))
        sums = T.alloc_buffer((2 * self.dot.register_scores,), "int16")
        self.clear_narrow(sums)
        # One loop, not one in another: LLVM would unroll the inner one and run out of registers.
        for step in range(self.steps):
            for q in T.unroll(self.dot.register_queries):
                for b in T.unroll(self.dot.register_blocks):
                    sums[self.narrow_cell(q, b)] = sums[self.narrow_cell(q, b)] + narrow.products(
                        self.keys(packed, first + b, step), self.word(q, step)
                    )
            if step % part_steps == part_steps - 1:
                for q in T.unroll(self.dot.register_queries):
                    for b in T.unroll(self.dot.register_blocks):
                        acc[self.cell(q, b)] = acc[self.cell(q, b)] + narrow.widened(
                            sums[self.narrow_cell(q, b)]
                        )
                self.clear_narrow(sums)

    @T.inline
    def clear_narrow(self, sums: T.Buffer) -> None:
        for q in T.unroll(self.dot.register_queries):
            for b in T.unroll(self.dot.register_blocks):
                sums[self.narrow_cell(q, b)] = splat(T.int16(0), 2 * self.dot.lanes)

    def narrow_cell(self, query: Expr, block: Expr) -> Expr:
        """The element indices of one accumulator of 16-bit sums."""
        lanes = 2 * self.dot.lanes
        return T.ramp((query * self.dot.register_blocks + block) * lanes, 1, lanes)


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
    def put(self, pilot: PilotQueries, sums: T.Buffer, tile: Expr) -> None:
        for q in T.unroll(self.dot.register_queries):
            for b in T.unroll(self.dot.register_blocks):
                self.scores[self.first_row + q, self.positions(tile, b)] = sums[pilot.cell(q, b)]


def pilot_scores(
    spec: AttentionSpec, features: CpuFeatures, quant_max: int = INT8_QMAX
) -> tirx.PrimFunc:
    """The standalone stage: one head's queries, measured and quantized, against its packed keys.

    Variables: `q` (m, Hq, D) float32, of which `head` is taken; `scales` (3,) float32, ascending;
    `packed` as `quantize_keys` writes it, a multiple of `register_blocks` blocks; outputs `scores`
    (padded m, padded n) int32, m rounded up to `register_queries` and all of the packed keys, and
    `chosen` (1,) float32, the scale used. Padding queries repeat the last; padding keys score 0.
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
        q = T.match_buffer(var_q, (num_queries, heads, dim), "float32")
        scales = T.match_buffer(var_scales, (BUCKETS_PER_AXIS,), "float32")
        packed = T.match_buffer(
            var_packed, (num_blocks, dim // dot.group, dot.lanes * dot.group), dot.key_dtype
        )
        scores = T.match_buffer(var_scores, (padded_queries, padded_keys), "int32")
        chosen = T.match_buffer(var_chosen, (1,), "float32")
        q_rows = T.decl_buffer((num_queries * heads, dim), "float32", data=q.data)
        view = PilotRow(dim, lanes, centered=False, rotated=False)
        largest = AbsoluteMaximum(view)
        queries = PilotQueries(dim, dot, view, quant_max)
        largest.clear()
        for i in range(num_queries):
            largest.include(q_rows, i * heads + head, q_rows, 0)
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
