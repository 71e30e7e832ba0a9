"""One query per sequence against its pages, split over keys: the parts, and their sum.

Each KV head's keys are cut into splits, attended to in parallel; a split leaves its unnormalized
sum, its maximum and its weight, which are then added up in order, so results don't depend on the
number of threads.
"""

from __future__ import annotations

from typing import Any

from tvm.script import tirx as T

from ..constants import EMPTY_LSE
from ..simd.storage import as_stored
from ..simd.vector import const_f32, exp2, splat
from ..spec import AttentionSpec
from .decode_group import DecodeGroup
from .page_table import list_page_rows, sequence_keys, value_row_offset
from .tile_rows import UNSEEN_SCORE
from .tiles import DecodeTile

Expr = Any  # a TIR expression; TVM ships no types


@T.meta_class
class DecodeSplits:
    """The splits of a batch. Made inside the PrimFunc, outside parallel loops.

    Parameters
    ----------
    page_indptr, page_values, length_info : as of the decode slot.

    Attributes
    ----------
    indptr : (batch + 1,) int32, where each sequence's splits start.
    """

    def __init__(
        self,
        spec: AttentionSpec,
        sizes: DecodeTile,
        batch: Expr,
        page_indptr: T.Buffer,
        page_values: T.Buffer,
        length_info: T.Buffer,
    ) -> None:
        self.spec = spec
        self.sizes = sizes
        self.batch = batch
        self.page_indptr = page_indptr
        self.page_values = page_values
        self.length_info = length_info
        self.indptr = T.alloc_buffer((batch + 1,), "int32")

    def num_keys(self, sequence: Expr) -> Expr:
        """Keys in a sequence's pages."""
        return sequence_keys(
            self.page_indptr[sequence],
            self.page_indptr[sequence + 1],
            self.length_info[sequence],
            self.spec.page_size,
        )

    def capacity(self, used_pages: Expr) -> Expr:
        """Tasks at the most: one split per sequence is not full."""
        pages_per_split = self.sizes.split_keys // self.spec.page_size
        return (used_pages // pages_per_split + self.batch) * self.spec.num_kv_heads

    @T.inline
    def count(self) -> None:
        self.indptr[0] = 0
        for b in range(self.batch):
            self.indptr[b + 1] = self.indptr[b] + T.ceildiv(self.num_keys(b), self.sizes.split_keys)

    @T.inline
    def locate(self, task: Expr, sequence: T.Buffer) -> None:
        """`sequence[0]` = whose split task = split * Hkv + KV head works on."""
        sequence[0] = 0
        while self.indptr[sequence[0] + 1] <= task // self.spec.num_kv_heads:
            sequence[0] = sequence[0] + 1


@T.meta_class
class SplitParts:
    """What the splits leave: for `capacity` tasks the unnormalized sums, maxima and weights."""

    def __init__(self, splits: DecodeSplits, capacity: Expr) -> None:
        spec, sizes = splits.spec, splits.sizes
        self.splits = splits
        self.spec = spec
        self.sizes = sizes
        self.lanes = sizes.lanes
        self.vectors = spec.head_dim // sizes.lanes
        self.part_o = T.alloc_buffer((capacity, spec.group_size, spec.head_dim), "float32")
        self.part_max = T.alloc_buffer((capacity, spec.group_size), "float32")
        self.part_sum = T.alloc_buffer((capacity, spec.group_size), "float32")

    def vector(self, index: Expr) -> Expr:
        return T.ramp(index * self.lanes, 1, self.lanes)

    @T.inline
    def attend(self, task: Expr, b: Expr, q: T.Buffer, cache_rows: T.Buffer) -> None:
        """One task's split of sequence `b`; q (batch, Hq, D), cache_rows from `page_rows`."""
        kv_head = T.bind(task % self.spec.num_kv_heads)
        first = T.bind(
            (task // self.spec.num_kv_heads - self.splits.indptr[b]) * self.sizes.split_keys
        )
        num_keys = T.bind(T.min(self.sizes.split_keys, self.splits.num_keys(b) - first))
        heads = DecodeGroup(self.spec, self.sizes)
        list_page_rows(
            heads.rows,
            self.sizes.row_table,
            self.splits.page_values,
            self.splits.page_indptr[b],
            kv_head,
            first,
            num_keys,
            self.spec,
        )
        heads.run(q, b, kv_head, cache_rows, cache_rows, value_row_offset(self.spec), num_keys)
        for h in range(self.spec.group_size):
            self.part_max[task, h] = heads.row_max[h]
            self.part_sum[task, h] = heads.row_sum[h]
            for v in range(self.vectors):
                self.part_o[task, h, self.vector(v)] = heads.o[h, self.vector(v)]

    @T.inline
    def add_up(self, b: Expr, head: Expr, output: T.Buffer, lse: T.Buffer) -> None:
        """`output[b, head]`, `lse[b, head]` from the parts; zeros and EMPTY_LSE without any."""
        total = T.alloc_buffer((self.spec.head_dim,), "float32")
        row_max = T.alloc_buffer((1,), "float32")
        row_sum = T.alloc_buffer((1,), "float32")
        kv_head = T.bind(head // self.spec.group_size)
        h = T.bind(head % self.spec.group_size)
        row_max[0] = T.float32(UNSEEN_SCORE)
        row_sum[0] = T.float32(0)
        for v in range(self.vectors):
            total[self.vector(v)] = const_f32(0.0, self.lanes)
        first_split = T.bind(self.splits.indptr[b])
        num_splits = T.bind(self.splits.indptr[b + 1] - first_split)
        for s in range(num_splits):
            row_max[0] = T.max(
                row_max[0], self.part_max[(first_split + s) * self.spec.num_kv_heads + kv_head, h]
            )
        for s in range(num_splits):
            task = T.bind((first_split + s) * self.spec.num_kv_heads + kv_head)
            weight = T.bind(exp2(self.part_max[task, h] - row_max[0], 1))
            row_sum[0] = row_sum[0] + self.part_sum[task, h] * weight
            for v in range(self.vectors):
                total[self.vector(v)] = total[self.vector(v)] + self.part_o[
                    task, h, self.vector(v)
                ] * splat(weight, self.lanes)
        if num_splits > 0:
            inverse = T.bind(T.float32(1) / row_sum[0])
            for v in range(self.vectors):
                output[b, head, self.vector(v)] = as_stored(
                    total[self.vector(v)] * splat(inverse, self.lanes), output.dtype
                )
            lse[b, head] = row_max[0] + T.log2(row_sum[0])
        else:
            for v in range(self.vectors):
                output[b, head, self.vector(v)] = as_stored(
                    const_f32(0.0, self.lanes), output.dtype
                )
            lse[b, head] = T.float32(EMPTY_LSE)
