"""C/G-Sparse: each query keeps the keys of its largest exact scores (paper, baselines).

What a perfect pilot would select, at the price of scores in float32 on the CPU.
"""

from __future__ import annotations

from tvm.script import tirx as T

from ..attention.page_table import value_row_offset
from ..attention.tiles import attention_tile
from ..features import CpuFeatures
from ..pilot.top_k import RowSelector, index_slack
from ..shadow.sparse_tile import SparseTile
from ..simd.vector import Expr
from ..spec import AttentionSpec
from .float_rows import FloatRows


@T.meta_class
class ExactSelection:
    """See `selective_prefill.Selection`."""

    def __init__(
        self, spec: AttentionSpec, features: CpuFeatures, row_table: T.Buffer, num_keys: Expr
    ) -> None:
        self.spec = spec
        self.features = features
        self.row_table = row_table
        self.num_keys = num_keys
        self.max_queries = self.block_queries(features)
        self.slack = index_slack(features)

    @staticmethod
    def block_queries(features: CpuFeatures) -> int:
        """As many as walk through the keys together."""
        return attention_tile(features).queries

    @T.inline
    def build(self, cache_rows: T.Buffer) -> None:
        """Nothing is shared between tasks."""

    @T.inline
    def run(
        self,
        q: T.Buffer,
        q_rows: T.Buffer,
        cache_rows: T.Buffer,
        head: Expr,
        keep: Expr,
        first_query: Expr,
        num_queries: Expr,
        output: T.Buffer,
        lse: T.Buffer,
    ) -> None:
        rows = FloatRows(self.spec, self.features, self.num_keys)
        selector = RowSelector(self.features)
        tile = SparseTile(self.spec, self.features, self.max_queries, keep + self.slack)
        key_offset = T.bind(head // self.spec.group_size * self.spec.page_size)
        selector.start()
        for strip in range(T.ceildiv(num_queries, rows.strip_queries)):
            first = T.bind(strip * rows.strip_queries)
            filled = T.bind(T.min(rows.strip_queries, num_queries - first))
            rows.fill(
                q_rows, cache_rows, self.row_table, key_offset, head, first_query + first, filled
            )
            for i in range(filled):
                selector.select(
                    rows.scores,
                    i,
                    rows.num_vectors,
                    self.num_keys,
                    keep,
                    tile.indices,
                    first + i,
                    tile.counts,
                )
        for i in range(num_queries):
            tile.load(q_rows, (first_query + i) * self.spec.num_q_heads + head, i)
        tile.attend(
            cache_rows,
            cache_rows,
            self.row_table,
            key_offset,
            key_offset + value_row_offset(self.spec),
            num_queries,
            self.num_keys,
        )
        for i in range(num_queries):
            tile.store(output, lse, first_query + i, head, i)
