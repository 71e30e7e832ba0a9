"""A list for each query: one tile of queries of one sparse head, from pilot to output."""

from __future__ import annotations

from tvm.script import tirx as T

from ..attention.page_table import value_row_offset
from ..attention.tiles import attention_tile
from ..features import CpuFeatures
from ..pilot.byte_rows import rows_to_rank
from ..pilot.key_shadow import KeyShadow
from ..pilot.plan_table import PlanTable
from ..pilot.row_selector import row_selector
from ..pilot.score_rows import ScoreRows
from ..pilot.top_k import index_slack
from ..simd.vector import Expr
from ..spec import ShadowSpec
from .rest_mean import RestMean
from .sparse_tile import SparseTile


@T.meta_class
class QueryTask:
    """Made inside the task. `tile.indices` and `tile.counts` are the lists."""

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
        self.pilot = ScoreRows(spec, features, keys, plan)
        self.rows = rows_to_rank(spec, features, keys, plan)
        self.selector = row_selector(features, spec.pilot.row_dtype)
        max_queries = attention_tile(features).queries
        self.tile = SparseTile(spec.attention, features, max_queries, keep + index_slack(features))

    @T.inline
    def select(
        self,
        q_rows: T.Buffer,
        q_buckets: T.Buffer,
        head: Expr,
        first_query: Expr,
        num_queries: Expr,
    ) -> None:
        """A list for each of the queries; q_rows (tokens * Hq, D)."""
        self.selector.start()
        self.rows.set_head(head, self.pilot.column(q_buckets, head))
        for group in range(T.ceildiv(num_queries, self.pilot.register_queries)):
            first = T.bind(group * self.pilot.register_queries)
            filled = T.bind(T.min(self.pilot.register_queries, num_queries - first))
            self.pilot.fill(q_rows, q_buckets, head, first_query + first, filled, 1, self.rows)
            self.rows.close(filled)
            for i in range(filled):
                self.selector.select(
                    self.rows.scores,
                    i,
                    self.rows.padded_keys // self.selector.vector_scores,
                    self.keys.num_keys,
                    self.keep,
                    self.tile.indices,
                    first + i,
                    self.tile.counts,
                )

    @T.inline
    def attend(
        self,
        q_rows: T.Buffer,
        cache_rows: T.Buffer,
        head: Expr,
        first_query: Expr,
        num_queries: Expr,
        output: T.Buffer,
        lse: T.Buffer,
        rest: RestMean,
    ) -> None:
        """`output` and `lse` of every query over its list, and the rest."""
        kv_head = T.bind(head // self.spec.group_size)
        for i in range(num_queries):
            self.tile.load(q_rows, (first_query + i) * self.spec.num_q_heads + head, i)
        self.tile.attend(
            cache_rows,
            cache_rows,
            self.keys.row_table,
            kv_head * self.spec.page_size,
            kv_head * self.spec.page_size + value_row_offset(self.spec),
            num_queries,
            self.keys.num_keys,
            rest.of_head(kv_head, self.keep),
        )
        for i in range(num_queries):
            self.tile.store(output, lse, first_query + i, head, i)
