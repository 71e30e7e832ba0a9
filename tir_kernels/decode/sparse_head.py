"""One query head of one sequence's new token: pilot, selection, exact attention over the list."""

from __future__ import annotations

from dataclasses import replace

from tvm.script import tirx as T

from ..attention.decode_group import DecodeGroup
from ..attention.page_table import key_row, value_row_offset
from ..attention.tile_rows import UNSEEN_SCORE
from ..attention.tiles import decode_tile
from ..constants import MASKED_SCORE
from ..features import CpuFeatures
from ..pilot.plan_table import PlanTable
from ..pilot.top_k import RowSelector, index_slack, row_multiple
from ..simd.storage import as_stored
from ..simd.vector import Expr, const_f32, exp2, splat
from ..spec import ShadowSpec
from .row_scores import RowScores


@T.meta_class
class SparseHead:
    """Made inside the task.

    Parameters
    ----------
    num_keys : of the sequence, at least 2: the newest is always attended to, the others compete.
    keep : how many of the others are kept, fewer than there are.
    started : any selector that was started; heads share what that computes.

    Attributes
    ----------
    indices : (1, keep + 1 + slack) int32, the list, ascending: keep + 1 keys, the newest last.
    """

    def __init__(
        self,
        spec: ShadowSpec,
        features: CpuFeatures,
        plan: PlanTable,
        page_values: T.Buffer,
        first_page: Expr,
        num_keys: Expr,
        keep: Expr,
        started: RowSelector,
    ) -> None:
        self.spec = spec.attention
        self.plan = plan
        self.page_values = page_values
        self.first_page = first_page
        self.num_keys = T.bind(num_keys)
        self.num_pages = T.bind(T.ceildiv(self.num_keys, spec.attention.page_size))
        self.keep = T.bind(keep)
        self.lanes = features.lanes
        self.vectors = spec.attention.head_dim // features.lanes
        multiple = row_multiple(features)
        self.padded = T.bind(
            T.ceildiv(self.num_pages * spec.attention.page_size, multiple) * multiple
        )
        self.scores = T.alloc_buffer((1, self.padded), "int32")
        self.indices = T.alloc_buffer((1, self.keep + 1 + index_slack(features)), "int32")
        self.counts = T.alloc_buffer((1,), "int32")
        self.pilot = RowScores(spec, features)
        self.selector = RowSelector(features, like=started)
        # the list is this head's alone, so it attends as a group of one
        self.alone = replace(spec.attention, num_kv_heads=spec.attention.num_q_heads)
        self.sizes = decode_tile(self.alone, features)
        self.group = DecodeGroup(self.alone, self.sizes)
        self.total = T.alloc_buffer((spec.attention.head_dim,), "float32")
        self.row_max = T.alloc_buffer((1,), "float32")
        self.row_sum = T.alloc_buffer((1,), "float32")

    def vector(self, index: Expr) -> Expr:
        return T.ramp(index * self.lanes, 1, self.lanes)

    @T.inline
    def select(self, q_rows: T.Buffer, row: Expr, head: Expr, cache_rows: T.Buffer) -> None:
        """The list of query `q_rows[row]`, q_rows (batch * Hq, D)."""
        older = T.bind(self.num_keys - 1)
        self.pilot.load(q_rows, row, self.plan, head)
        self.pilot.score(
            cache_rows,
            self.page_values,
            self.first_page,
            self.num_pages,
            head // self.spec.group_size,
            self.scores,
        )
        for i in range(self.padded - older):
            self.scores[0, older + i] = T.int32(MASKED_SCORE)
        self.selector.select(
            self.scores,
            0,
            self.padded // self.lanes,
            older,
            self.keep,
            self.indices,
            0,
            self.counts,
        )
        self.indices[0, self.keep] = older

    @T.inline
    def attend(
        self,
        q: T.Buffer,
        b: Expr,
        head: Expr,
        cache_rows: T.Buffer,
        output: T.Buffer,
        lse: T.Buffer,
    ) -> None:
        """`output[b, head]` and `lse[b, head]` over the list, a split of it at a time."""
        count = T.bind(self.keep + 1)
        kv_head = T.bind(head // self.spec.group_size)
        self.row_max[0] = T.float32(UNSEEN_SCORE)
        self.row_sum[0] = T.float32(0)
        for v in range(self.vectors):
            self.total[self.vector(v)] = const_f32(0.0, self.lanes)
        for part in range(T.ceildiv(count, self.sizes.split_keys)):
            first = T.bind(part * self.sizes.split_keys)
            for i in range(self.sizes.row_table):
                key = T.bind(self.indices[0, T.min(first + i, count - 1)])
                page = T.bind(self.page_values[self.first_page + key // self.spec.page_size])
                self.group.rows[i] = key_row(page, kv_head, key % self.spec.page_size, self.spec)
            self.group.run(
                q,
                b,
                head,
                cache_rows,
                cache_rows,
                value_row_offset(self.spec),
                T.bind(T.min(self.sizes.split_keys, count - first)),
            )
            self.add_part()
        inverse = T.bind(T.float32(1) / self.row_sum[0])
        for v in range(self.vectors):
            output[b, head, self.vector(v)] = as_stored(
                self.total[self.vector(v)] * splat(inverse, self.lanes), output.dtype
            )
        lse[b, head] = self.row_max[0] + T.log2(self.row_sum[0])

    @T.inline
    def add_part(self) -> None:
        """Fold the group's split into the sum so far."""
        largest = T.bind(T.max(self.row_max[0], self.group.row_max[0]))
        before = T.bind(exp2(self.row_max[0] - largest, 1))
        weight = T.bind(exp2(self.group.row_max[0] - largest, 1))
        self.row_max[0] = largest
        self.row_sum[0] = self.row_sum[0] * before + self.group.row_sum[0] * weight
        for v in range(self.vectors):
            self.total[self.vector(v)] = self.total[self.vector(v)] * splat(
                before, self.lanes
            ) + self.group.o[0, self.vector(v)] * splat(weight, self.lanes)
