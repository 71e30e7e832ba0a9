"""Keys whose INT8 shadow is kept in the pages: taken from there, instead of quantized again.

The shadow lies in rows, a key after the other, as decode reads and writes it (`shadow_rows`). The
packed layout has keys in lanes (`int8_dot`), so bytes are transposed, in words of four. The kept
shadow is of the middle scale of a KV head's grid; of a sequence whose keys measure another one,
it is of no use to prefill.
"""

from __future__ import annotations

from collections.abc import Sequence

from tvm.script import tirx as T

from ..simd.prefetch import prefetch_row
from ..simd.shuffle import BLOCK_LANES, concat, interleave, transpose_blocks
from ..simd.vector import Expr, splat
from ..spec import AttentionSpec
from .int8_dot import Int8DotMethod
from .shadow_rows import (
    has_key_maxima,
    maximum_column,
    maximum_elements,
    shadow_column,
    shadow_row_offset,
)

_WORD_BYTES = 4
"""Bytes of a key that are transposed as one."""

_BYTE_BITS = 8

_PART_BYTES = BLOCK_LANES * _WORD_BYTES
"""Of a key, loaded at a time; every head dim is a multiple of that."""


@T.meta_class
class KeptKeys:
    """One sequence's keys in the pages.

    Parameters
    ----------
    row_table : (num_keys,) int32, the row of K of each key for KV head 0.

    Attributes
    ----------
    has_maxima : Python's, whether the pages say how large each key is.
    """

    def __init__(
        self, spec: AttentionSpec, dot: Int8DotMethod, row_table: T.Buffer, num_keys: Expr
    ) -> None:
        self.spec = spec
        self.dot = dot
        self.row_table = row_table
        self.num_keys = num_keys
        self.has_maxima = has_key_maxima(spec)

    def maximum(self, cache_rows: T.Buffer, kv_head: Expr, key: Expr) -> Expr:
        """The largest |element| of a key as the pilot sees it; float32."""
        offset = shadow_row_offset(self.spec.num_kv_heads, self.spec)
        row = T.Cast("int64", self.row_table[key] + offset)
        column = maximum_column(kv_head, self.spec)
        elements = maximum_elements(self.spec)
        stored = cache_rows[row, column if elements == 1 else T.ramp(column, 1, elements)]
        return stored if elements == 1 else T.reinterpret("float32", stored)

    def pack(
        self,
        cache_rows: T.Buffer,
        kv_head: Expr,
        first_key: Expr,
        packed: T.Buffer,
        packed_block: Expr,
    ) -> None:
        """Plain Python, run while the kernel is parsed: `packed[packed_block]` = the `lanes` keys
        from `first_key` on; zeros beyond the last key."""
        last_key = self.num_keys - 1
        offset = T.bind(shadow_row_offset(kv_head, self.spec))
        column = T.bind(shadow_column(kv_head, self.spec))
        rows = []
        for lane in range(self.dot.lanes):
            key = T.bind(T.min(first_key + lane, last_key))
            rows.append(T.bind(T.Cast("int64", self.row_table[key] + offset)))
            # the block after this one: hardware prefetchers stop where a page ends
            ahead = T.bind(T.min(first_key + self.dot.lanes + lane, last_key))
            prefetch_row(
                cache_rows,
                T.Cast("int64", self.row_table[ahead] + offset),
                self.spec.head_dim // self.spec.element_bytes,
                column,
            )
        num_filled = T.bind(self.num_keys - first_key)
        elements = _PART_BYTES // self.spec.element_bytes
        with T.serial(self.spec.head_dim // _PART_BYTES) as part:
            at = T.ramp(column + part * elements, 1, elements)
            words = [T.reinterpret(f"uint32x{BLOCK_LANES}", cache_rows[row, at]) for row in rows]
            # four vectors, of every fourth key each: transposing blocks puts keys in order
            mixed = [concat(words[i::BLOCK_LANES], BLOCK_LANES) for i in range(BLOCK_LANES)]
            words = [
                T.bind(self._prepared(each, num_filled))
                for each in transpose_blocks(mixed, self.dot.lanes)
            ]
            at_once = max(self.dot.group // _WORD_BYTES, 1)
            for first in range(0, BLOCK_LANES, at_once):
                step = (part * BLOCK_LANES + first) * _WORD_BYTES // self.dot.group
                self._store(words[first : first + at_once], packed, packed_block, step)

    def _prepared(self, words: Expr, num_filled: Expr) -> Expr:
        """A word of every key, as the dot method wants its bytes; of lanes without a key zeros."""
        lanes = self.dot.lanes
        num_bytes = lanes * _WORD_BYTES
        is_key = T.ramp(0, 1, lanes) < splat(num_filled, lanes)  # TVM can't bind such a vector
        kept = T.Select(is_key, words, splat(T.uint32(0), lanes))
        return T.reinterpret(
            f"uint32x{lanes}",
            T.reinterpret(f"uint8x{num_bytes}", kept)
            + splat(T.uint8(self.dot.key_offset), num_bytes),
        )

    def _store(
        self, words: Sequence[Expr], packed: T.Buffer, packed_block: Expr, first_step: Expr
    ) -> None:
        """The steps from `first_step` on that one word of every key makes, or the one step that
        takes several."""
        lanes, group = self.dot.lanes, self.dot.group
        if len(words) > 1:
            steps = [interleave(words, lanes)]
        else:
            steps = [
                T.Cast(
                    f"uint{_BYTE_BITS * group}x{lanes}",
                    T.shift_right(words[0], splat(T.uint32(_BYTE_BITS * at), lanes)),
                )
                for at in range(0, _WORD_BYTES, group)
            ]
        for step, keys in enumerate(steps):
            T.buffer_store(
                packed,
                T.reinterpret(f"{self.dot.key_dtype}x{lanes * group}", keys),
                [packed_block, first_step + step, T.ramp(0, 1, lanes * group)],
            )
