"""One shared list: the rows of a block of queries, of one head or of a GQA group, from pilot to
output."""

from __future__ import annotations

from tvm.script import tirx as T

from ..attention.page_table import value_row_offset
from ..attention.tiles import attention_tile
from ..features import CpuFeatures
from ..pilot.key_shadow import KeyShadow
from ..pilot.plan_table import PlanTable
from ..pilot.score_rows import ScoreRows
from ..pilot.top_k import RowSelector, index_slack
from ..pilot.votes import votes_of_rows
from ..simd.vector import Expr
from ..spec import ShadowSpec
from .list_tile import ListTile


@T.meta_class
class PooledTask:
    """Made inside the task. `indices` (1, keep + slack) and `counts` (1,) are the list."""

    def __init__(
        self,
        spec: ShadowSpec,
        features: CpuFeatures,
        keys: KeyShadow,
        plan: PlanTable,
        keep: Expr,
    ) -> None:
        self.spec = spec.attention
        self.keys = keys
        self.keep = keep
        self.lanes = features.lanes
        self.pilot = ScoreRows(spec, features, keys, plan)
        self.votes = votes_of_rows(features, keys, plan)
        self.selector = RowSelector(features)
        self.indices = T.alloc_buffer((1, keep + index_slack(features)), "int32")
        self.counts = T.alloc_buffer((1,), "int32")
        self.tile = ListTile(spec.attention, attention_tile(features))

    @T.inline
    def select(
        self,
        q_rows: T.Buffer,
        q_buckets: T.Buffer,
        first_head: Expr,
        num_heads: Expr,
        first_query: Expr,
        num_queries: Expr,
    ) -> None:
        """`indices` and `counts` from the rows' votes; q_rows (tokens * Hq, D)."""
        self.votes.clear()
        for head in range(first_head, first_head + num_heads):
            self.votes.set_head(head, self.pilot.column(q_buckets, head))
            for group in range(T.ceildiv(num_queries, self.pilot.register_queries)):
                first = T.bind(group * self.pilot.register_queries)
                filled = T.bind(T.min(self.pilot.register_queries, num_queries - first))
                self.pilot.fill(q_rows, q_buckets, head, first_query + first, filled, self.votes)
                for i in range(filled):
                    self.votes.add(i)
        self.votes.close()
        self.selector.start()
        self.selector.select(
            self.votes.importance,
            0,
            self.votes.padded_keys // self.lanes,
            self.keys.num_keys,
            self.keep,
            self.indices,
            0,
            self.counts,
        )

    @T.inline
    def attend(
        self,
        q: T.Buffer,
        cache_rows: T.Buffer,
        first_head: Expr,
        num_heads: Expr,
        first_query: Expr,
        num_queries: Expr,
        output: T.Buffer,
        lse: T.Buffer,
    ) -> None:
        """`output` and `lse` of every row over the list."""
        self.tile.run(
            q,
            cache_rows,
            self.keys.row_table,
            first_head // self.spec.group_size * self.spec.page_size,
            value_row_offset(self.spec),
            self.indices,
            self.counts[0],
            first_head,
            num_heads,
            first_query,
            num_queries,
            output,
            lse,
        )
