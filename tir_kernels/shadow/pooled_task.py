"""One shared list: the rows of a block of queries, of one head or of a GQA group, from pilot to
output."""

from __future__ import annotations

from tvm.script import tirx as T

from ..attention.page_table import value_row_offset
from ..attention.tiles import attention_tile
from ..features import CpuFeatures
from ..pilot.key_shadow import KeyShadow
from ..pilot.plan_table import PlanTable
from ..pilot.pooling import PADDING, Votes
from ..pilot.score_rows import ScoreRows
from ..pilot.top_k import RowSelector, index_slack
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
        self.plan = plan
        self.keep = keep
        self.rows = ScoreRows(spec, features, keys, plan, PADDING)
        self.votes = Votes(features.lanes, self.rows.padded_keys)
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
        self.votes.start()
        self.votes.clear()
        for head in range(first_head, first_head + num_heads):
            column = T.bind(
                self.plan.pair(q_buckets[head], self.keys.buckets[head // self.spec.group_size])
            )
            self.votes.set_step(self.plan.steps[head, column])
            for group in range(T.ceildiv(num_queries, self.rows.register_queries)):
                first = T.bind(group * self.rows.register_queries)
                self.rows.fill(q_rows, q_buckets, head, first_query + first, num_queries - first)
                for i in range(T.min(self.rows.register_queries, num_queries - first)):
                    self.votes.add(self.rows.scores, i)
        self.votes.close(self.keys.num_keys)
        self.selector.start()
        self.selector.select(
            self.votes.importance,
            0,
            self.votes.num_vectors,
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
