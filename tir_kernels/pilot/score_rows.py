"""The pilot's scores for a few queries of one head, as rows of INT32 or straight to a sink."""

from __future__ import annotations

from math import lcm

from tvm.script import tirx as T

from ..constants import MASKED_SCORE
from ..features import CpuFeatures
from ..simd.vector import Expr
from ..spec import ShadowSpec
from .int8_dot import int8_dot_method
from .key_shadow import KeyShadow
from .pilot_rows import PilotRow
from .plan_table import PlanTable
from .quantized_rows import QuantizedRows, ScoreSink
from .requantize import half_unit, requantize_lanes
from .scores import PilotQueries
from .top_k import row_multiple


def padded_keys(keys: KeyShadow, features: CpuFeatures) -> Expr:
    """The length of a row of scores: whole register tiles, and whole steps of what reads them."""
    row_keys = lcm(keys.dot.register_keys, row_multiple(features))
    return T.ceildiv(keys.num_keys, row_keys) * row_keys


@T.meta_class
class ScoreRows:
    """Quantizes and scores a register tile of queries, inside a task.

    Attributes
    ----------
    register_queries : queries taken at a time.
    """

    def __init__(
        self, spec: ShadowSpec, features: CpuFeatures, keys: KeyShadow, plan: PlanTable
    ) -> None:
        dot = int8_dot_method(features, spec.pilot.quant_max)
        self.num_q_heads = spec.attention.num_q_heads
        self.group_size = spec.attention.group_size
        self.keys = keys
        self.plan = plan
        self.register_queries = dot.register_queries
        view = PilotRow(
            spec.attention.head_dim,
            features.lanes,
            centered=False,  # a mean taken from queries would change the order
            rotated=spec.pilot.hadamard_rotation,
        )
        self.pilot = PilotQueries(spec.attention.head_dim, dot, view, spec.pilot.quant_max)

    def column(self, q_buckets: T.Buffer, head: Expr) -> Expr:
        """The plan's column of a head's bucket pair; q_buckets (Hq,)."""
        return self.plan.pair(q_buckets[head], self.keys.buckets[head // self.group_size])

    @T.inline
    def fill(
        self,
        q_rows: T.Buffer,
        q_buckets: T.Buffer,
        head: Expr,
        first_query: Expr,
        num_queries: Expr,
        query_stride: Expr,
        sink: ScoreSink,
    ) -> None:
        """Hand to `sink` the scores of `register_queries` queries, every `query_stride`-th from
        `first_query` on, of which there are `num_queries` (the last one is repeated). q_rows
        (tokens * Hq, D)."""
        q_scale = T.bind(self.plan.q_scales[head, q_buckets[head]])
        for i in range(self.register_queries):
            query = T.bind(first_query + T.min(i, num_queries - 1) * query_stride)
            self.pilot.quantize(q_rows, query * self.num_q_heads + head, q_scale, i)
        self.pilot.score(
            self.keys.packed,
            head // self.group_size * self.keys.num_blocks,
            self.keys.num_tiles,
            sink,
        )


@T.meta_class
class IntegerRows:
    """Rows for top-k, a `ScoreSink` made inside a task: INT32 scores, requantized if the plan says
    so. (Of 8 bits, they fit `byte_rows.ByteRows`.)::

        rows.set_head(head, column)
        ...  # hand the scores of a register tile of queries to rows
        rows.close(num_queries)  # rows.scores are ready

    Attributes
    ----------
    scores : (register_queries, padded keys) of `dtype`; after `close`, padding is `masked`.
    multiplier, shift : (1,) int32, the requantization of the head.
    """

    dtype = "int32"
    masked = MASKED_SCORE

    def __init__(
        self, spec: ShadowSpec, features: CpuFeatures, keys: KeyShadow, plan: PlanTable
    ) -> None:
        self.requantize = spec.pilot.requantize
        self.score_max = spec.pilot.score_max
        self.keys = keys
        self.plan = plan
        self.dot = keys.dot
        self.padded_keys = T.bind(padded_keys(keys, features))
        self.scores = T.alloc_buffer((self.dot.register_queries, self.padded_keys), self.dtype)
        self.multiplier = T.alloc_buffer((1,), "int32")
        self.shift = T.alloc_buffer((1,), "int32")

    @T.inline
    def set_head(self, head: Expr, column: Expr) -> None:
        """The rows that follow are of a head; `column` of the plan's tables."""
        if self.requantize:
            self.multiplier[0] = self.plan.multipliers[head, column]
            self.shift[0] = self.plan.shifts[head, column]

    def start(self, query: Expr) -> Expr:
        return half_unit(self.shift[0]) if self.requantize else T.int32(0)

    @T.inline
    def put(self, pilot: QuantizedRows, sums: T.Buffer, tile: Expr) -> None:
        for q in T.unroll(self.dot.register_queries):
            for b in T.unroll(self.dot.register_blocks):
                self.scores[
                    q,
                    T.ramp(tile * self.dot.register_keys + b * self.dot.lanes, 1, self.dot.lanes),
                ] = self.stored(sums[pilot.cell(q, b)])

    def stored(self, sums: Expr) -> Expr:
        """A block of scores as it is kept."""
        if not self.requantize:
            return sums
        scores = requantize_lanes(
            sums, self.multiplier[0], self.shift[0], self.score_max, self.dot.lanes
        )
        return T.Cast(f"{self.dtype}x{self.dot.lanes}", scores)

    @T.inline
    def close(self, num_queries: Expr) -> None:
        """Mask the padding of `num_queries` rows."""
        for i in range(num_queries):
            for pad in range(self.padded_keys - self.keys.num_keys):
                self.scores[i, self.keys.num_keys + pad] = T.Cast(self.dtype, T.int32(self.masked))
