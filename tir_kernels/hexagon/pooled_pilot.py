"""The pooled pilot on HVX: INT8 queries and packed keys in, one importance per key and list out.

Scores stay in scratch of a few rows, and never leave the DSP. Everything is integers; the bits are
those of the host's pilot.

Source: `pilot.pooling` and `pilot.requantize` have the contract.
"""

from __future__ import annotations

from tvm import tirx
from tvm.script import tirx as T

from ..pilot.requantize import half_unit
from ..spec import SpecError
from .graph_spec import PilotGraphSpec
from .hvx import WORDS
from .requantize import in_both_halves
from .score_tile import BLOCKS, QUERIES, ScoreTile
from .votes import TileVotes

SCALE_FIELDS = 3
"""Of a head: multiplier, shift (see `Requantizer`) and step (see `pooling_step`)."""


def pooled_pilot(spec: PilotGraphSpec) -> tirx.PrimFunc:
    """The last stage of a graph whose rows share lists.

    Variables: `queries` (units, heads, M, D) int8; `packed`, as of `pack_keys`; `scales`
    (units * heads, 3) int32, each head's multiplier, shift and step; `lengths` (2,) int32, the rows
    of each head that vote, up to M, and the keys that count, up to N; output `importance`
    (units, lists, N) int32, MASKED_SCORE from the last key on; `scores` and `weights` are scratch.
    Computation, per list: `reference.pooling.importance` of the requantized scores of the list's
    rows of all heads of its unit. Lists without rows are zeros.

    Raises `SpecError` unless rows share lists.
    """
    if not spec.pilot.pooled:
        raise SpecError("expected a pilot whose rows share lists, got one with a list for each row")
    rows, dim, heads, lists = spec.queries, spec.head_dim, spec.heads, spec.lists
    block, unit_blocks = spec.list_rows, spec.keys // WORDS

    @T.prim_func(s_tir=True)
    def shadowattn_pooled_pilot(
        var_queries: T.handle,
        var_packed: T.handle,
        var_scales: T.handle,
        var_lengths: T.handle,
        var_importance: T.handle,
        var_scores: T.handle,
        var_weights: T.handle,
    ) -> None:
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
        queries = T.match_buffer(var_queries, (spec.units, heads, rows, dim), "int8")
        packed = T.match_buffer(var_packed, spec.packed_shape, "int32")
        scales = T.match_buffer(var_scales, (spec.all_heads, SCALE_FIELDS), "int32")
        lengths = T.match_buffer(var_lengths, (2,), "int32")
        importance = T.match_buffer(var_importance, (spec.units, lists, spec.keys), "int32")
        scores = T.match_buffer(var_scores, spec.scratch_shape, "int32")
        weights = T.match_buffer(var_weights, spec.scratch_shape, "int32")
        num_rows = T.bind(lengths[0])
        list_rows = T.decl_buffer((spec.units * lists, spec.keys), "int32", data=importance.data)
        tile = ScoreTile(queries, packed, spec.all_heads * rows, dim)
        votes = TileVotes(spec, list_rows, scores, weights, T.bind(lengths[1]))
        votes.start()
        for unit in range(spec.units):
            votes.clear(unit * lists)
            for head in range(unit * heads, (unit + 1) * heads):
                multipliers = T.bind(in_both_halves(scales[head, 0]))
                shift = T.bind(scales[head, 1])
                votes.set_step(scales[head, 2])
                for group in range(T.ceildiv(num_rows, QUERIES)):
                    first = T.bind(group * QUERIES)
                    tile.begin(head * rows + first, half_unit(shift))
                    votes.start_rows()
                    for t in range(votes.tiles):
                        tile.run(head * rows + first, unit * unit_blocks + t * BLOCKS)
                        votes.take_scores(tile, t, multipliers, shift)
                    votes.vote(unit * lists + first // block, num_rows - first)
            votes.close(unit * lists)

    return shadowattn_pooled_pilot
