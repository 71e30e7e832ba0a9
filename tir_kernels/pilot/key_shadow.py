"""The INT8 shadow of one sequence's past keys: measured, then quantized and packed, in parallel.

Done once per call and shared by all of a chunk's queries. Where the pages keep a shadow of their
own, maxima and INT8 values come from there (`kept_keys`), and what is packed is the same to the
bit. What they keep is of the middle scale; a KV head whose keys measure another one is quantized
anew, all of it.
"""

from __future__ import annotations

from tvm.script import tirx as T

from ..attention.page_table import sequence_row
from ..features import CpuFeatures
from ..simd.vector import Expr
from ..spec import ShadowSpec
from .int8_dot import int8_dot_method
from .kept_keys import KeptKeys
from .key_block import KeyBlock
from .plan_table import PlanTable
from .quantize import nearest_bucket

SEGMENT_BLOCKS = 32
"""Blocks of keys that one task measures or packs: enough work to be worth a task."""


@T.meta_class
class KeyShadow:
    """One sequence's keys. Made inside the PrimFunc, outside parallel loops.

    Attributes
    ----------
    row_table : (num_keys,) int32, the row of K of each key for KV head 0; other heads' rows lie
        `page_size` apart.
    packed : (Hkv * num_blocks, D / group, lanes * group), the quantized keys of KV head h from
        block h * num_blocks on; `num_blocks` is a multiple of `register_blocks`.
    buckets : (Hkv,) int32, which of its scales each KV head took.
    """

    def __init__(self, plan: ShadowSpec, features: CpuFeatures, num_keys: Expr) -> None:
        dot = int8_dot_method(features, plan.pilot.quant_max)
        spec = plan.attention
        self.plan = plan
        self.spec = spec
        self.dot = dot
        self.is_kept = spec.shadow_rows > 0
        self.lanes = features.lanes
        self.num_keys = T.bind(num_keys)
        self.num_tiles = T.bind(T.ceildiv(self.num_keys, dot.register_keys))
        self.num_blocks = T.bind(self.num_tiles * dot.register_blocks)
        self.num_segments = T.bind(T.ceildiv(self.num_blocks, SEGMENT_BLOCKS))
        self.row_table = T.alloc_buffer((self.num_keys,), "int32")
        self.packed = T.alloc_buffer(
            (
                spec.num_kv_heads * self.num_blocks,
                spec.head_dim // dot.group,
                dot.lanes * dot.group,
            ),
            dot.key_dtype,
        )
        self.maxima = T.alloc_buffer((spec.num_kv_heads * self.num_segments,), "float32")
        self.buckets = T.alloc_buffer((spec.num_kv_heads,), "int32")
        self.kept = KeptKeys(spec, dot, self.row_table, self.num_keys)

    @T.inline
    def list_rows(self, page_values: T.Buffer, first_page: Expr) -> None:
        """Fill `row_table` from the sequence's page ids, which start at `first_page`."""
        for key in range(self.num_keys):
            self.row_table[key] = sequence_row(page_values, first_page, 0, key, self.spec)

    def block(self) -> KeyBlock:
        """A task's block of keys as the pilot sees them."""
        return KeyBlock(
            self.spec.head_dim,
            self.dot,
            centered=self.plan.key_means is not None,
            rotated=self.plan.pilot.hadamard_rotation,
            quant_max=self.plan.pilot.quant_max,
        )

    @T.inline
    def build(self, cache_rows: T.Buffer, plan: PlanTable) -> None:
        """Measure, choose buckets, quantize and pack every KV head."""
        if self.plan.buckets_per_axis > 1:
            for task in T.parallel(self.spec.num_kv_heads * self.num_segments):
                if self.is_kept and self.kept.has_maxima:
                    self.look_up(cache_rows, task)
                else:
                    self.measure(cache_rows, plan, task)
            for kv_head in range(self.spec.num_kv_heads):
                self.choose_bucket(plan, kv_head)
        else:
            for kv_head in range(self.spec.num_kv_heads):
                self.buckets[kv_head] = 0
        for task in T.parallel(self.spec.num_kv_heads * self.num_segments):
            if self.is_taken(task % self.spec.num_kv_heads):
                self.take(cache_rows, task)
            else:
                self.pack(cache_rows, plan, task)

    def is_taken(self, kv_head: Expr) -> Expr:
        """Whether the pages have a KV head's keys at the scale that was chosen; Python's False
        where they keep nothing."""
        return self.is_kept and self.buckets[kv_head] == self.plan.buckets_per_axis // 2

    @T.inline
    def look_up(self, cache_rows: T.Buffer, task: Expr) -> None:
        """`measure`, from the maxima in the pages."""
        first = T.bind(task // self.spec.num_kv_heads * SEGMENT_BLOCKS * self.dot.lanes)
        kv_head = T.bind(task % self.spec.num_kv_heads)
        largest = T.alloc_buffer((1,), "float32")
        largest[0] = T.float32(0)
        for i in range(T.min(SEGMENT_BLOCKS * self.dot.lanes, self.num_keys - first)):
            largest[0] = T.max(largest[0], self.kept.maximum(cache_rows, kv_head, first + i))
        self.maxima[task] = largest[0]

    @T.inline
    def take(self, cache_rows: T.Buffer, task: Expr) -> None:
        """`pack`, from the shadow in the pages."""
        kv_head = T.bind(task % self.spec.num_kv_heads)
        first_block = T.bind(task // self.spec.num_kv_heads * SEGMENT_BLOCKS)
        for i in range(T.min(SEGMENT_BLOCKS, self.num_blocks - first_block)):
            self.kept.pack(
                cache_rows,
                kv_head,
                (first_block + i) * self.dot.lanes,
                self.packed,
                kv_head * self.num_blocks + first_block + i,
            )

    @T.inline
    def measure(self, cache_rows: T.Buffer, plan: PlanTable, task: Expr) -> None:
        """Task = segment * Hkv + KV head, so that neighbours find the same pages in their caches;
        `maxima[task]` = the segment's largest |k|."""
        block = self.block()
        first_block = T.bind(task // self.spec.num_kv_heads * SEGMENT_BLOCKS)
        filled_blocks = T.bind(T.ceildiv(self.num_keys, self.dot.lanes))
        block.clear_maximum()
        for i in range(T.min(SEGMENT_BLOCKS, filled_blocks - first_block)):
            self.load(block, cache_rows, plan, task % self.spec.num_kv_heads, first_block + i)
            block.include_maximum()
        self.maxima[task] = block.maximum()

    @T.inline
    def load(
        self, block: KeyBlock, cache_rows: T.Buffer, plan: PlanTable, kv_head: Expr, index: Expr
    ) -> None:
        """The `index`-th block of a KV head; one beyond the last key repeats that."""
        block.load(
            cache_rows,
            self.row_table,
            kv_head * self.spec.page_size,
            T.min(index * self.dot.lanes, self.num_keys - 1),
            self.num_keys,
            plan.key_means,
            kv_head,
        )

    @T.inline
    def choose_bucket(self, plan: PlanTable, kv_head: Expr) -> None:
        """`buckets[kv_head]` = the one nearest to the scale of all its keys."""
        largest = T.alloc_buffer((1,), "float32")
        largest[0] = T.float32(0)
        for s in range(self.num_segments):
            largest[0] = T.max(largest[0], self.maxima[s * self.spec.num_kv_heads + kv_head])
        self.buckets[kv_head] = nearest_bucket(
            largest[0], plan.k_axis(kv_head), self.plan.pilot.quant_max
        )

    @T.inline
    def pack(self, cache_rows: T.Buffer, plan: PlanTable, task: Expr) -> None:
        """Quantize and pack one segment, with the scale that its whole head measures."""
        block = self.block()
        kv_head = T.bind(task % self.spec.num_kv_heads)
        first_block = T.bind(task // self.spec.num_kv_heads * SEGMENT_BLOCKS)
        scale = T.bind(plan.k_scales[kv_head, self.buckets[kv_head]])
        for i in range(T.min(SEGMENT_BLOCKS, self.num_blocks - first_block)):
            self.load(block, cache_rows, plan, kv_head, first_block + i)
            block.pack(
                scale,
                self.num_keys - (first_block + i) * self.dot.lanes,
                self.packed,
                kv_head * self.num_blocks + first_block + i,
            )
