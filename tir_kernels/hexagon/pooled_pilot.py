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
from .requantize import in_both_halves
from .score_tile import BLOCKS, QUERIES, ScoreTile
from .votes import TileVotes

SCALE_FIELDS = 3
"""Of a head: multiplier, shift (see `Requantizer`) and step (see `pooling_step`)."""


def pooled_pilot(spec: PilotGraphSpec) -> tirx.PrimFunc:
    """The last stage of a graph whose rows share lists.

    Variables: `queries` (heads, M, D) int8; `packed`, as of `pack_keys`; `scales` (heads, 3) int32,
    each head's multiplier, shift and step; `lengths` (2,) int32, the rows of each head that vote,
    up to M, and the keys that count, up to N; output `importance` (lists, N) int32, lists of a head
    after those of the one before, MASKED_SCORE from the last key on; `scratch` is overwritten.
    Computation, per list: `reference.pooling.importance` of the requantized scores of its rows.
    """
    rows, dim = spec.queries, spec.head_dim
    block, shared = spec.pilot.query_block, spec.pilot.share_group

    @T.prim_func(s_tir=True)
    def shadowattn_pooled_pilot(
        queries: T.Buffer((spec.heads, rows, dim), "int8"),
        packed: T.Buffer(spec.packed_shape, "int32"),
        scales: T.Buffer((spec.heads, SCALE_FIELDS), "int32"),
        lengths: T.Buffer((2,), "int32"),
        importance: T.Buffer((spec.lists, spec.keys), "int32"),
        scratch: T.Buffer(spec.scratch_shape, "int32"),
    ) -> None:
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
        tile = ScoreTile(queries, packed, spec.heads * rows, dim)
        num_rows = T.bind(lengths[0])
        votes = TileVotes(spec, importance, scratch, T.bind(lengths[1]))
        votes.clear()
        for head in range(spec.heads):
            multipliers = T.bind(in_both_halves(scales[head, 0]))
            shift = T.bind(scales[head, 1])
            votes.set_step(scales[head, 2])
            for group in range(T.ceildiv(num_rows, QUERIES)):
                first = T.bind(group * QUERIES)
                tile.begin(head * rows + first, half_unit(shift))
                votes.start_rows()
                for t in range(votes.tiles):
                    tile.run(head * rows + first, t * BLOCKS)
                    votes.take_scores(tile, t, multipliers, shift)
                head_lists = T.bind(0 if shared else head * (rows // block))
                votes.vote(head_lists + first // block, num_rows - first)
        votes.close()

    return shadowattn_pooled_pilot


def check_pooled(spec: PilotGraphSpec) -> None:
    """Raise `SpecError` unless rows share lists."""
    if not spec.pilot.pooled:
        raise SpecError("expected a pilot whose rows share lists, got one with a list for each row")
