"""C/G-Block-Sparse: mean-pooled blocks of 64 x 64 choose the tokens (paper, baselines).

Each block of queries keeps the key blocks with the largest product of the two means. The budget is
the plan's to the key: blocks are taken by falling score, ties to the lower index, and of the block
that no longer fits in whole the first keys are taken.
"""

from __future__ import annotations

from tvm.script import tirx as T

from ..attention.page_table import value_row_offset
from ..attention.tiles import attention_tile
from ..constants import MEAN_BLOCK_TOKENS
from ..features import CpuFeatures
from ..shadow.list_tile import ListTile
from ..simd.storage import as_float32
from ..simd.vector import Expr, const_f32, splat, sum_lanes
from ..spec import AttentionSpec


@T.meta_class
class BlockSelection:
    """See `selective_prefill.Selection`.

    Attributes
    ----------
    means : (Hkv * num_blocks, D) float32, those of KV head h from row h * num_blocks on.
    """

    def __init__(
        self, spec: AttentionSpec, features: CpuFeatures, row_table: T.Buffer, num_keys: Expr
    ) -> None:
        self.spec = spec
        self.sizes = attention_tile(features)
        self.lanes = features.lanes
        self.vectors = spec.head_dim // features.lanes
        self.row_table = row_table
        self.num_keys = num_keys
        self.num_blocks = T.bind(T.ceildiv(num_keys, MEAN_BLOCK_TOKENS))
        self.means = T.alloc_buffer((spec.num_kv_heads * self.num_blocks, spec.head_dim), "float32")

    @staticmethod
    def block_queries(features: CpuFeatures) -> int:
        """Those that share a mean, on every vector unit."""
        del features
        return MEAN_BLOCK_TOKENS

    def vector(self, index: Expr) -> Expr:
        """The positions of the `index`-th vector."""
        return T.ramp(index * self.lanes, 1, self.lanes)

    def block_keys(self, block: Expr) -> Expr:
        """How many keys a block has; the last may be short."""
        return T.min(MEAN_BLOCK_TOKENS, self.num_keys - block * MEAN_BLOCK_TOKENS)

    @T.inline
    def clear(self, means: T.Buffer, slot: Expr) -> None:
        for j in T.unroll(self.vectors):
            means[slot, self.vector(j)] = const_f32(0.0, self.lanes)

    @T.inline
    def add(self, means: T.Buffer, slot: Expr, rows: T.Buffer, row: Expr) -> None:
        for j in T.unroll(self.vectors):
            means[slot, self.vector(j)] = means[slot, self.vector(j)] + as_float32(
                rows[row, self.vector(j)]
            )

    @T.inline
    def divide(self, means: T.Buffer, slot: Expr, count: Expr) -> None:
        for j in T.unroll(self.vectors):
            means[slot, self.vector(j)] = means[slot, self.vector(j)] / splat(
                T.Cast("float32", count), self.lanes
            )

    @T.inline
    def build(self, cache_rows: T.Buffer) -> None:
        """The means of all key blocks."""
        for task in T.parallel(self.spec.num_kv_heads * self.num_blocks):
            block = T.bind(task % self.num_blocks)
            offset = T.bind(task // self.num_blocks * self.spec.page_size)
            self.clear(self.means, task)
            for i in range(self.block_keys(block)):
                row = T.bind(
                    T.Cast("int64", self.row_table[block * MEAN_BLOCK_TOKENS + i] + offset)
                )
                self.add(self.means, task, cache_rows, row)
            self.divide(self.means, task, self.block_keys(block))

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
        scores = T.alloc_buffer((self.num_blocks,), "float32")
        indices = T.alloc_buffer((1, keep), "int32")
        kv_head = T.bind(head // self.spec.group_size)
        self.score(q_rows, head, kv_head, first_query, num_queries, scores)
        self.take(scores, keep, indices)
        tile = ListTile(self.spec, self.sizes)
        tile.run(
            q,
            cache_rows,
            self.row_table,
            kv_head * self.spec.page_size,
            value_row_offset(self.spec),
            indices,
            0,
            keep,
            head,
            1,
            first_query,
            num_queries,
            output,
            lse,
        )

    @T.inline
    def score(
        self,
        q_rows: T.Buffer,
        head: Expr,
        kv_head: Expr,
        first_query: Expr,
        num_queries: Expr,
        scores: T.Buffer,
    ) -> None:
        """`scores` (num_blocks,): the queries' mean times each key block's."""
        q_mean = T.alloc_buffer((1, self.spec.head_dim), "float32")
        total = T.alloc_buffer((self.lanes,), "float32")
        self.clear(q_mean, 0)
        for i in range(num_queries):
            self.add(q_mean, 0, q_rows, (first_query + i) * self.spec.num_q_heads + head)
        self.divide(q_mean, 0, num_queries)
        for block in range(self.num_blocks):
            row = T.bind(kv_head * self.num_blocks + block)
            total[self.vector(0)] = const_f32(0.0, self.lanes)
            for j in T.unroll(self.vectors):
                total[self.vector(0)] = (
                    total[self.vector(0)]
                    + q_mean[0, self.vector(j)] * self.means[row, self.vector(j)]
                )
            scores[block] = sum_lanes(total[self.vector(0)], self.lanes)

    @T.inline
    def take(self, scores: T.Buffer, keep: Expr, indices: T.Buffer) -> None:
        """`indices[0]` (keep,): the keys of the best blocks, ascending. A block's turn comes after
        all keys of the blocks before it; there are few blocks, so that counting those is cheap."""
        before = T.alloc_buffer((1,), "int32")
        taken = T.alloc_buffer((1,), "int32")
        taken[0] = 0
        for block in range(self.num_blocks):
            before[0] = 0
            for other in range(self.num_blocks):
                is_first = T.Or(
                    scores[other] > scores[block],
                    T.And(scores[other] == scores[block], other < block),
                )
                before[0] = before[0] + T.Select(is_first, self.block_keys(other), 0)
            count = T.bind(T.max(T.min(keep - before[0], self.block_keys(block)), 0))
            for i in range(count):
                indices[0, taken[0] + i] = block * MEAN_BLOCK_TOKENS + i
            taken[0] = taken[0] + count
