"""The pilot's scores on HVX, for plans with a list for each query: top-k happens elsewhere."""

from __future__ import annotations

from tvm import tirx
from tvm.script import tirx as T

from ..constants import MASKED_SCORE
from ..pilot.requantize import half_unit
from ..simd.vector import Expr
from .graph_spec import PilotGraphSpec
from .hvx import HALVES, WORDS, pack_bytes, words
from .limits import TileLimits
from .pooled_pilot import SCALE_FIELDS
from .requantize import in_both_halves, requantize_halves
from .score_tile import BLOCKS, QUERIES, ScoreTile

_MASKED = {8: -(2**7), 9: -(2**15)}
"""Below every requantized score, by bits of a score."""


def pilot_scores(spec: PilotGraphSpec) -> tirx.PrimFunc:
    """The last stage of a graph that ends in scores.

    Variables: `queries`, `packed`, `lengths` as of `pooled_pilot`, and `scales`, if scores are
    requantized; output `scores` (units, heads, M, N) int32, or int16 of 9 bits, or int8 of 8 bits.
    Computation: `scores[u, h, i, j] = queries[u, h, i] . keys[u, j]`, requantized if the plan says
    so; from the last key on, the lowest number there is; rows beyond the last query, up to a
    multiple of 4, are scores of what stands there.
    """
    return _requantized(spec) if spec.pilot.requantize else _integers(spec)


def _integers(spec: PilotGraphSpec) -> tirx.PrimFunc:
    rows, keys, shape = spec.queries, spec.keys, (spec.units, spec.heads, spec.queries, spec.keys)

    @T.prim_func(s_tir=True)
    def shadowattn_pilot_scores(
        var_queries: T.handle, var_packed: T.handle, var_lengths: T.handle, var_scores: T.handle
    ) -> None:
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
        queries = T.match_buffer(var_queries, (*shape[:3], spec.head_dim), "int8")
        packed = T.match_buffer(var_packed, spec.packed_shape, "int32")
        lengths = T.match_buffer(var_lengths, (2,), "int32")
        scores = T.match_buffer(var_scores, shape, "int32")
        score_rows = T.decl_buffer((spec.all_heads * rows, keys), "int32", data=scores.data)
        tile = ScoreTile(queries, packed, spec.all_heads * rows, spec.head_dim)
        num_keys = T.bind(lengths[1])
        limits = TileLimits(WORDS, 2**31 - 1, MASKED_SCORE, num_keys)
        limits.start()
        for head in range(spec.all_heads):
            block = T.bind(head // spec.heads * (keys // WORDS))
            for group in range(T.ceildiv(lengths[0], QUERIES)):
                row = T.bind(head * rows + group * QUERIES)
                tile.begin(row, T.int32(0))
                for t in range(T.ceildiv(num_keys, BLOCKS * WORDS)):
                    tile.run(row, block + t * BLOCKS)
                    _store_integers(tile, score_rows, row, t, limits)

    return shadowattn_pilot_scores


def _store_integers(
    tile: ScoreTile, scores: T.Buffer, row: Expr, index: Expr, limits: TileLimits
) -> None:
    for b in range(BLOCKS):
        most = T.bind(limits.of(index, b))
        for q in range(QUERIES):
            masked = T.min(tile.values(q)[b], most)
            T.buffer_store(scores, masked, [row + q, words(index * BLOCKS + b)])


def _requantized(spec: PilotGraphSpec) -> tirx.PrimFunc:
    rows, shape = spec.queries, (spec.units, spec.heads, spec.queries, spec.keys)
    bits = spec.pilot.score_bits
    row_words = spec.keys * (1 if bits == 8 else 2) // 4

    @T.prim_func(s_tir=True)
    def shadowattn_pilot_scores(
        var_queries: T.handle,
        var_packed: T.handle,
        var_scales: T.handle,
        var_lengths: T.handle,
        var_scores: T.handle,
    ) -> None:
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
        queries = T.match_buffer(var_queries, (*shape[:3], spec.head_dim), "int8")
        packed = T.match_buffer(var_packed, spec.packed_shape, "int32")
        scales = T.match_buffer(var_scales, (spec.all_heads, SCALE_FIELDS), "int32")
        lengths = T.match_buffer(var_lengths, (2,), "int32")
        scores = T.match_buffer(var_scores, shape, spec.score_dtype)
        score_rows = T.decl_buffer((spec.all_heads * rows, row_words), "int32", data=scores.data)
        tile = ScoreTile(queries, packed, spec.all_heads * rows, spec.head_dim)
        num_keys = T.bind(lengths[1])
        limits = TileLimits(HALVES, spec.pilot.score_max, _MASKED[bits], num_keys)
        limits.start()
        for head in range(spec.all_heads):
            block = T.bind(head // spec.heads * (spec.keys // WORDS))
            multipliers = T.bind(in_both_halves(scales[head, 0]))
            shift = T.bind(scales[head, 1])
            for group in range(T.ceildiv(lengths[0], QUERIES)):
                row = T.bind(head * rows + group * QUERIES)
                tile.begin(row, half_unit(shift))
                for t in range(T.ceildiv(num_keys, BLOCKS * WORDS)):
                    tile.run(row, block + t * BLOCKS)
                    _store_requantized(tile, score_rows, row, t, limits, multipliers, shift, spec)

    return shadowattn_pilot_scores


def _store_requantized(
    tile: ScoreTile,
    scores: T.Buffer,
    row: Expr,
    index: Expr,
    limits: TileLimits,
    multipliers: Expr,
    shift: Expr,
    spec: PilotGraphSpec,
) -> None:
    bits, score_max = spec.pilot.score_bits, spec.pilot.score_max
    pairs = range(BLOCKS // 2)
    most = [T.bind(limits.of(index, p)) for p in pairs]
    for q in range(QUERIES):
        sums = tile.values(q)
        halves = [
            T.bind(
                requantize_halves(
                    sums[2 * p], sums[2 * p + 1], multipliers, shift, score_max, most[p]
                )
            )
            for p in pairs
        ]
        if bits == 8:
            T.buffer_store(scores, pack_bytes(*halves), [row + q, words(index)])
        else:
            for p, half in enumerate(halves):
                T.buffer_store(scores, half, [row + q, words(index * len(pairs) + p)])
