"""A block of keys, one in each lane: loaded, centred, rotated, measured, quantized and packed.

The packed layout has keys in lanes (see `int8_dot`), so keys are transposed as they are loaded.
What changes them is then an add or a subtract of whole vectors, without a shuffle. The bits are
those of `pilot_rows`, which does the same to a single row.
"""

from __future__ import annotations

from tvm import tirx
from tvm.script import tirx as T

from ..constants import INT8_QMAX
from ..features import CpuFeatures
from ..simd.prefetch import prefetch_row
from ..simd.shuffle import interleave, transpose
from ..simd.storage import as_float32
from ..simd.vector import Expr, const_f32, max_lanes, splat
from ..spec import AttentionSpec, rotation_block
from .int8_dot import Int8DotMethod, int8_dot_method
from .quantize import BUCKETS_PER_AXIS, nearest_bucket, quantize_lanes

_STAGES_AT_ONCE = 3
"""Of the rotation: 8 vectors in registers, so that memory is passed every third stage only."""

_BYTE_BITS = 8
_WORD_BYTES = 4


@T.meta_class
class KeyBlock:
    """`lanes` keys as the pilot sees them. Make one per task.

    Attributes
    ----------
    columns : (D, lanes) float32, the last block loaded; lanes without a key repeat the last one.
    """

    def __init__(
        self,
        head_dim: int,
        dot: Int8DotMethod,
        *,
        centered: bool,
        rotated: bool,
        quant_max: int = INT8_QMAX,
    ) -> None:
        self.dot = dot
        self.lanes = dot.lanes
        self.dims = head_dim
        self.centered = centered
        self.quant_max = quant_max
        self.stages = rotation_block(head_dim).bit_length() - 1 if rotated else 0
        self.columns = T.alloc_buffer((head_dim, dot.lanes), "float32")
        self.lane_maxima = T.alloc_buffer((dot.lanes,), "float32")

    def lane(self) -> Expr:
        """All lanes of a row of `columns`."""
        return T.ramp(0, 1, self.lanes)

    @T.inline
    def load(
        self,
        rows: T.Buffer,
        row_table: T.Buffer,
        row_offset: Expr,
        first_key: Expr,
        num_keys: Expr,
        means: T.Buffer,
        mean: Expr,
    ) -> None:
        """`columns` = keys `first_key` and on: key i is row `row_table[i] + row_offset` of `rows`
        (any, D), less `means[mean]` of means (any, D) if centred; first_key < num_keys."""
        for lane in range(self.lanes):
            # the block after this one: hardware prefetchers stop where a page ends
            ahead = T.bind(T.min(first_key + self.lanes + lane, num_keys - 1))
            prefetch_row(rows, T.Cast("int64", row_table[ahead] + row_offset), self.dims)
        for square in range(self.dims // self.lanes):
            self.load_square(
                rows, row_table, row_offset, first_key, num_keys, means, mean, square * self.lanes
            )
        self.rotate()

    def load_square(
        self,
        rows: T.Buffer,
        row_table: T.Buffer,
        row_offset: Expr,
        first_key: Expr,
        num_keys: Expr,
        means: T.Buffer,
        mean: Expr,
        first_dim: Expr,
    ) -> None:
        """Plain Python: emits `lanes` dimensions of all keys of the block, transposed."""
        dims = T.ramp(first_dim, 1, self.lanes)
        keys = []
        for lane in range(self.lanes):
            entry = row_table[T.min(first_key + lane, num_keys - 1)] + row_offset
            key = as_float32(rows[T.Cast("int64", entry), dims])
            keys.append(T.bind(key - means[mean, dims]) if self.centered else T.bind(key))
        for dim, column in enumerate(transpose(keys, self.lanes)):
            T.buffer_store(self.columns, column, [first_dim + dim, self.lane()])

    def rotate(self) -> None:
        """Plain Python: emits the Walsh-Hadamard transform, some stages in one pass."""
        for stage in range(0, self.stages, _STAGES_AT_ONCE):
            count = min(_STAGES_AT_ONCE, self.stages - stage)
            with T.serial(self.dims >> count) as group:
                self.rotate_group(group, 1 << stage, count)

    def rotate_group(self, group: Expr, distance: int, count: int) -> None:
        """Plain Python: emits `count` stages of the transform from a distance on, for one of the
        groups of 2^count columns that these mix."""
        first = group // distance * (distance << count) + group % distance
        size = 1 << count
        dims = [first + i * distance for i in range(size)]
        columns = [T.bind(self.columns[dim, self.lane()]) for dim in dims]
        for stage in range(count):
            step = 1 << stage
            for i in range(size):
                if not i & step:
                    a, b = columns[i], columns[i + step]
                    columns[i], columns[i + step] = T.bind(a + b), T.bind(a - b)
        for dim, column in zip(dims, columns, strict=True):
            T.buffer_store(self.columns, column, [dim, self.lane()])

    @T.inline
    def clear_maximum(self) -> None:
        self.lane_maxima[self.lane()] = const_f32(0.0, self.lanes)

    @T.inline
    def include_maximum(self) -> None:
        """The loaded block joins what `maximum` is taken of."""
        for dim in range(self.dims):
            self.lane_maxima[self.lane()] = T.max(
                self.lane_maxima[self.lane()], T.abs(self.columns[dim, self.lane()])
            )

    def maximum(self) -> Expr:
        """The largest |k| of the blocks included."""
        return max_lanes(self.lane_maxima[self.lane()], self.lanes)

    @T.inline
    def pack(self, scale: Expr, num_filled: Expr, packed: T.Buffer, packed_block: Expr) -> None:
        """`packed[packed_block]` = the loaded block, quantized; zeros from lane `num_filled` on."""
        for step in range(self.dims // self.dot.group):
            packed[packed_block, step, T.ramp(0, 1, self.lanes * self.dot.group)] = T.reinterpret(
                f"{self.dot.key_dtype}x{self.lanes * self.dot.group}",
                T.Select(
                    T.ramp(0, 1, self.lanes) < splat(num_filled, self.lanes),
                    self.word(scale, step * self.dot.group),
                    splat(self.zero_word(), self.lanes),
                ),
            )

    @property
    def word_dtype(self) -> str:
        """Holds the elements of one key that a step takes."""
        return f"uint{self.dot.group * _BYTE_BITS}"

    def word(self, scale: Expr, first_dim: Expr) -> Expr:
        """What one step takes from each key: neighbouring elements from `first_dim` on."""
        words = [
            self.word32(scale, first_dim + first, min(self.dot.group, _WORD_BYTES))
            for first in range(0, self.dot.group, _WORD_BYTES)
        ]
        if len(words) == 1:
            return T.Cast(f"{self.word_dtype}x{self.lanes}", words[0])
        return T.reinterpret(f"{self.word_dtype}x{self.lanes}", interleave(words, self.lanes))

    def word32(self, scale: Expr, first_dim: Expr, num_elements: int) -> Expr:
        """Up to four neighbouring elements of each key from `first_dim` on, as uint32."""
        bits = splat(T.uint32(0), self.lanes)
        for element in range(num_elements):
            quantized = quantize_lanes(
                self.columns[first_dim + element, self.lane()], scale, self.lanes, self.quant_max
            ) + splat(T.int32(self.dot.key_offset), self.lanes)
            byte = T.reinterpret(f"uint32x{self.lanes}", quantized) & splat(
                T.uint32(0xFF), self.lanes
            )
            bits = bits | T.shift_left(byte, splat(T.uint32(element * _BYTE_BITS), self.lanes))
        return bits

    def zero_word(self) -> Expr:
        """A step's elements of a key that is zero."""
        byte = self.dot.key_offset & 0xFF
        value = sum(byte << (element * _BYTE_BITS) for element in range(self.dot.group))
        return tirx.const(value, self.word_dtype)


def quantize_keys(
    spec: AttentionSpec, features: CpuFeatures, quant_max: int = INT8_QMAX
) -> tirx.PrimFunc:
    """The standalone stage: one KV head's keys, measured, quantized and packed.

    Variables: `rows` (R, D), dtype of the spec; `row_table` (n,) int32, key i is row
    `row_table[i] + row_offset`; `scales` (3,) float32, ascending; outputs `packed`
    (blocks, D / group, lanes * group) in the dot method's key type, where `blocks` lanes hold n or
    more keys (the rest become zeros), and `chosen` (1,) float32, the scale used.
    """
    dot = int8_dot_method(features, quant_max)
    dim = spec.head_dim

    @T.prim_func(s_tir=True)
    def shadowattn_quantize_keys(
        var_rows: T.handle,  # (R, D)
        var_row_table: T.handle,  # (n,)
        var_scales: T.handle,  # (3,)
        var_packed: T.handle,  # (blocks, D / group, lanes * group)
        var_chosen: T.handle,  # (1,)
        row_offset: T.int32,
    ) -> None:
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
        num_rows, num_keys, num_blocks = T.int32(), T.int32(), T.int32()
        rows = T.match_buffer(var_rows, (num_rows, dim), spec.dtype)
        row_table = T.match_buffer(var_row_table, (num_keys,), "int32")
        scales = T.match_buffer(var_scales, (BUCKETS_PER_AXIS,), "float32")
        packed = T.match_buffer(
            var_packed, (num_blocks, dim // dot.group, dot.lanes * dot.group), dot.key_dtype
        )
        chosen = T.match_buffer(var_chosen, (1,), "float32")
        keys = KeyBlock(dim, dot, centered=False, rotated=False, quant_max=quant_max)
        keys.clear_maximum()
        for block in range(T.ceildiv(num_keys, dot.lanes)):
            keys.load(rows, row_table, row_offset, block * dot.lanes, num_keys, rows, 0)
            keys.include_maximum()
        chosen[0] = scales[
            nearest_bucket(keys.maximum(), [scales[0], scales[1], scales[2]], quant_max)
        ]
        for block in range(num_blocks):
            first = T.bind(block * dot.lanes)
            keys.load(rows, row_table, row_offset, T.min(first, num_keys - 1), num_keys, rows, 0)
            keys.pack(chosen[0], num_keys - first, packed, block)

    return shadowattn_quantize_keys
