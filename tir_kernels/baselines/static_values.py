"""INT8 values times 8-bit probabilities: the second product of an attention in INT8.

The pilot's dot product with its parts renamed: what it sums over are keys, and the dimensions of a
value lie in the lanes where keys lay. A row of probabilities takes the place of the query.
"""

from __future__ import annotations

from tvm.script import tirx as T

from ..attention.page_table import value_row_offset
from ..features import CpuFeatures
from ..pilot.int8_dot import int8_dot_method
from ..pilot.key_shadow import KeyShadow
from ..pilot.quantize import quantize_lanes
from ..pilot.quantized_rows import QuantizedRows
from ..simd.shuffle import pick
from ..simd.storage import as_float32, as_stored
from ..simd.vector import Expr, float32_dtype, splat, sum_lanes_i32
from ..spec import AttentionSpec

_SIGNED_OFFSET = 128
"""Taken from levels of 0..255 where the dot product wants INT8."""


@T.meta_class
class PackedValues:
    """One sequence's values. Made inside the PrimFunc, outside parallel loops.

    Attributes
    ----------
    packed : (Hkv * num_blocks, padded keys / group, lanes * group), dimensions of KV head h from
        block h * num_blocks on; keys from `num_keys` on are zeros.
    sums : (Hkv, num_blocks * lanes) int32, over the keys.
    """

    def __init__(
        self, spec: AttentionSpec, features: CpuFeatures, keys: KeyShadow, padded_keys: Expr
    ) -> None:
        dot = int8_dot_method(features)
        self.spec = spec
        self.dot = dot
        self.keys = keys
        self.padded_keys = padded_keys
        self.value_blocks = spec.head_dim // dot.lanes
        self.num_tiles = -(-self.value_blocks // dot.register_blocks)
        self.num_blocks = self.num_tiles * dot.register_blocks
        self.packed = T.alloc_buffer(
            (spec.num_kv_heads * self.num_blocks, padded_keys // dot.group, dot.lanes * dot.group),
            dot.key_dtype,
        )
        self.sums = T.alloc_buffer((spec.num_kv_heads, self.num_blocks * dot.lanes), "int32")

    @T.inline
    def build(self, cache_rows: T.Buffer, scale: Expr) -> None:
        """Quantize and pack every block of dimensions."""
        for task in T.parallel(self.spec.num_kv_heads * self.num_blocks):
            self.pack(cache_rows, scale, task // self.num_blocks, task % self.num_blocks)

    @T.inline
    def pack(self, cache_rows: T.Buffer, scale: Expr, kv_head: Expr, block: Expr) -> None:
        """One block; those beyond the head's dimensions are never read out."""
        total = T.alloc_buffer((self.dot.lanes,), "int32")
        offset = T.bind(kv_head * self.spec.page_size + value_row_offset(self.spec))
        first = T.bind(T.min(block, self.value_blocks - 1) * self.dot.lanes)
        total[T.ramp(0, 1, self.dot.lanes)] = splat(T.int32(0), self.dot.lanes)
        for step in range(self.padded_keys // self.dot.group):
            self.pack_step(
                cache_rows, scale, offset, first, kv_head * self.num_blocks + block, step, total
            )
        self.sums[kv_head, T.ramp(block * self.dot.lanes, 1, self.dot.lanes)] = total[
            T.ramp(0, 1, self.dot.lanes)
        ]

    def pack_step(
        self,
        cache_rows: T.Buffer,
        scale: Expr,
        offset: Expr,
        first: Expr,
        packed_block: Expr,
        step: Expr,
        total: T.Buffer,
    ) -> None:
        """Plain Python: `group` keys, interleaved, so that a lane's elements are neighbours."""
        lanes, group = self.dot.lanes, self.dot.group
        keys = [step * group + e for e in range(group)]
        codes = [self.codes(cache_rows, scale, offset, first, key) for key in keys]
        all_lanes, key_offset = T.ramp(0, 1, lanes), splat(T.int32(self.dot.key_offset), lanes)
        T.buffer_store(total, sum(codes, total[all_lanes]), [all_lanes])
        stored = [
            T.bind(T.Cast(f"{self.dot.key_dtype}x{lanes}", code + key_offset)) for code in codes
        ]
        order = [e * lanes + lane for lane in range(lanes) for e in range(group)]
        place = [packed_block, step, T.ramp(0, 1, lanes * group)]
        T.buffer_store(self.packed, pick(stored, order), place)

    def codes(
        self, cache_rows: T.Buffer, scale: Expr, offset: Expr, first: Expr, key: Expr
    ) -> Expr:
        """A key's values, of `lanes` dimensions from `first` on; zeros for padding."""
        lanes, num_keys = self.dot.lanes, self.keys.num_keys
        row = T.bind(T.Cast("int64", self.keys.row_table[T.min(key, num_keys - 1)] + offset))
        stored = as_float32(cache_rows[row, T.ramp(first, 1, lanes)])
        quantized = quantize_lanes(stored, scale, lanes)
        return T.bind(quantized * splat(T.Cast("int32", key < num_keys), lanes))


@T.meta_class
class LevelRows(QuantizedRows):
    """Rows of probabilities, `register_queries` of them; `score` them against `PackedValues`.

    Attributes
    ----------
    q8 : the levels less `offset`; padded keys to a row.
    """

    def __init__(self, features: CpuFeatures, padded_keys: Expr) -> None:
        super().__init__(padded_keys, int8_dot_method(features))
        self.lanes = features.lanes
        self.offset = _SIGNED_OFFSET if self.dot.query_dtype == "int8" else 0
        self.total = T.alloc_buffer((features.lanes,), "int32")

    @T.inline
    def start_row(self) -> None:
        self.total[T.ramp(0, 1, self.lanes)] = splat(T.int32(0), self.lanes)

    @T.inline
    def put_levels(self, row: Expr, first: Expr, levels: Expr) -> None:
        """Levels, int32 lanes of 0..255, of a row's keys from `first` on."""
        shifted = T.bind(levels - splat(T.int32(self.offset), self.lanes))
        self.store(row, first, shifted, self.lanes)
        self.total[T.ramp(0, 1, self.lanes)] = self.total[T.ramp(0, 1, self.lanes)] + shifted

    @T.inline
    def finish_row(self, row: Expr) -> None:
        self.bias[row] = -self.dot.key_offset * sum_lanes_i32(
            self.total[T.ramp(0, 1, self.lanes)], self.lanes
        )


@T.meta_class
class OutputSink:
    """Writes sums of levels times values as output; a `ScoreSink`."""

    def __init__(
        self,
        values: PackedValues,
        level_offset: int,
        kv_head: Expr,
        head: Expr,
        first_query: Expr,
        num_queries: Expr,
        output: T.Buffer,
        scale: Expr,
    ) -> None:
        self.values = values
        self.dot = values.dot
        self.level_offset = level_offset
        self.kv_head = kv_head
        self.head = head
        self.first_query = first_query
        self.num_queries = num_queries
        self.output = output
        self.scale = scale

    def start(self, query: Expr) -> Expr:
        return T.int32(0)

    @T.inline
    def put(self, pilot: QuantizedRows, sums: T.Buffer, tile: Expr) -> None:
        for q in range(self.num_queries):
            for b in T.unroll(self.dot.register_blocks):
                block = T.bind(tile * self.dot.register_blocks + b)
                if block < self.values.value_blocks:
                    self.output[
                        self.first_query + q,
                        self.head,
                        T.ramp(block * self.dot.lanes, 1, self.dot.lanes),
                    ] = as_stored(
                        T.Cast(
                            float32_dtype(self.dot.lanes),
                            sums[pilot.cell(q, b)] + self.correction(block),
                        )
                        * splat(self.scale, self.dot.lanes),
                        self.output.dtype,
                    )

    def correction(self, block: Expr) -> Expr:
        """What the levels' offset left out."""
        dims = T.ramp(block * self.dot.lanes, 1, self.dot.lanes)
        return self.values.sums[self.kv_head, dims] * splat(
            T.int32(self.level_offset), self.dot.lanes
        )
