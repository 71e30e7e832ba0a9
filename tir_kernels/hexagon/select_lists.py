"""Top-k on HVX: from rows of importances or scores to lists, so that no CPU has to select.

Source: "Dynamic Sparse Attention on Mobile SoCs", the top-k stage; the search is that of
`pilot.byte_top_k`: the threshold is found bit by bit, each by one pass that counts a row against a
candidate. The lists are those of `reference.top_k`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from tvm import tirx
from tvm.script import tirx as T

from ..constants import RATIO_ONE
from ..pilot.pooling import ROW_BITS
from ..simd.vector import Expr, splat
from .graph_spec import PilotGraphSpec
from .hvx import (
    VECTOR,
    VECTOR_BYTES,
    WORDS,
    add_bytes,
    as_bytes,
    drop_bytes,
    even_bytes,
    even_halves,
    has_bits,
    in_every_byte,
    is_equal,
    is_greater,
    is_greater_unsigned_byte,
    last_byte,
    prefix_sum,
    splat_word,
    sum_of_words,
    widen_bytes,
    words,
)
from .left_pack import LeftPack
from .score_tile import TILE_KEYS

NO_KEY = -1
"""In a list beyond its count."""

_RATIO_BITS = RATIO_ONE.bit_length() - 1


def select_lists(spec: PilotGraphSpec) -> tirx.PrimFunc:
    """The stage of a graph that ends in lists.

    Variables: `ranked` (units, lists, N) int32 importances, or (units, heads, M, N) scores, as
    `pooled_pilot` and `pilot_scores` leave them; `ratios` (units * heads, 1) int32, each head's
    keep ratio in units of 2^-16, of which a unit that pools takes its first head's; `lengths` (2,)
    int32, the rows of each head and the keys that count; output `lists` (rows * C + rows,) int32
    of the rows of `ranked`: C indices of keys, ascending, NO_KEY beyond the count, then every row's
    count; `scratch` (N + 128,) is overwritten.
    Computation: the `min(C, keep_count(n, ratio, k_min))` largest of the n keys that count, ties to
    the lower index. Rows without queries have the count 0.
    """
    assert spec.selection is not None
    capacity, k_min = spec.selection.capacity, spec.selection.k_min
    pooled = spec.pilot.pooled
    owners, owner_rows = (spec.units, spec.lists) if pooled else (spec.all_heads, spec.queries)
    owner_heads = spec.heads if pooled else 1
    queries_of_row = spec.pilot.query_block if pooled else 1
    row_words = spec.keys * np.dtype(spec.ranked_dtype).itemsize // 4

    @T.prim_func(s_tir=True)
    def shadowattn_select_lists(
        var_ranked: T.handle,
        var_ratios: T.handle,
        var_lengths: T.handle,
        var_lists: T.handle,
        var_scratch: T.handle,
    ) -> None:
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
        ranked = T.match_buffer(var_ranked, spec.ranked_shape, spec.ranked_dtype)
        ratios = T.match_buffer(var_ratios, (spec.all_heads, 1), "int32")
        lengths = T.match_buffer(var_lengths, (2,), "int32")
        lists = T.match_buffer(var_lists, (spec.list_words,), "int32")
        scratch = T.match_buffer(var_scratch, (spec.keys + TILE_KEYS,), "int32")
        rows = T.decl_buffer((spec.all_lists, row_words), "int32", data=ranked.data)
        num_keys = T.bind(lengths[1])
        filled = T.bind(T.ceildiv(lengths[0], queries_of_row))
        selector = RowSelection(spec, rows, scratch, num_keys)
        selector.start()
        for owner in range(owners):
            kept = T.bind(_keep_count(num_keys, ratios[owner * owner_heads, 0], k_min))
            for i in range(owner_rows):
                row = T.bind(owner * owner_rows + i)
                wanted = T.bind(T.if_then_else(i < filled, T.min(kept, capacity), 0))
                selector.select(row, wanted)
                for v in range(capacity // WORDS):
                    lists[row * capacity + words(v)] = selector.listed(v, wanted)
                lists[spec.all_lists * capacity + row] = wanted

    return shadowattn_select_lists


def _keep_count(num_keys: Expr, ratio: Expr, k_min: int) -> Expr:
    """`spec.keep_count`, an int32 scalar."""
    product = T.Cast("int64", num_keys) * T.Cast("int64", ratio) + T.int64(RATIO_ONE - 1)
    wanted = T.Cast("int32", T.shift_right(product, T.int64(_RATIO_BITS)))
    return T.min(num_keys, T.max(T.int32(k_min), wanted))


def _range(spec: PilotGraphSpec) -> tuple[int, int]:
    """A number below all that a key can have and not below what one beyond the last has; the bits
    of the largest, counted from there."""
    if spec.pilot.pooled:
        return -1, (spec.pilot.query_block * spec.heads << ROW_BITS).bit_length()
    if spec.pilot.requantize:
        return -spec.pilot.score_max - 1, (2 * spec.pilot.score_max).bit_length()
    largest = spec.head_dim << 14  # of two int8's, -128 times -128
    return -largest - 1, (2 * largest).bit_length()


@T.meta_class
class RowSelection:
    """Made inside a kernel, then `start`ed.

    Parameters
    ----------
    rows : (rows, N) in int32 words.
    scratch : (N + 128,) int32: a list grows there by whole vectors.
    """

    def __init__(
        self, spec: PilotGraphSpec, rows: T.Buffer, scratch: T.Buffer, num_keys: Expr
    ) -> None:
        self.rows = rows
        self.scratch = scratch
        self.element_bytes = np.dtype(spec.ranked_dtype).itemsize
        self.lowest, self.bits = _range(spec)
        self.tiles = T.bind(T.ceildiv(num_keys, TILE_KEYS))
        self.pack = LeftPack()
        self.sums = T.alloc_buffer((WORDS,), "int32")
        self.floor = T.alloc_buffer((1,), "int32")
        self.above = T.alloc_buffer((1,), "int32")
        self.ties = T.alloc_buffer((1,), "int32")
        self.count = T.alloc_buffer((1,), "int32")

    @T.inline
    def start(self) -> None:
        """Once, before all else."""
        self.pack.start()

    @T.inline
    def select(self, row: Expr, wanted: Expr) -> None:
        """`scratch` = the list of a row, `wanted` keys of it, at least as many of which count."""
        self.search(row, wanted)
        self.ties[0] = wanted - self.above[0]
        self.count[0] = 0
        for tile in range(self.tiles):
            self.collect(row, tile)

    @T.inline
    def search(self, row: Expr, wanted: Expr) -> None:
        """floor = the largest, counted from `lowest`, that at least `wanted` lie above; `above` the
        number of those above floor + 1."""
        self.floor[0] = 0
        self.above[0] = 0
        for bit in range(self.bits):
            candidate = T.bind(self.floor[0] + T.shift_right(T.int32(1 << self.bits - 1), bit))
            self.sums[words(0)] = splat_word(T.int32(0))
            for tile in range(self.tiles):
                self.count_above(row, tile, self.lowest + candidate)
            count = T.bind(T.shift_right(sum_of_words(self.sums[words(0)]), self.count_shift()))
            # none are wanted: as for one, of which `collect` then takes none
            if count < T.max(wanted, 1):
                self.above[0] = count
            else:
                self.floor[0] = candidate

    def count_shift(self) -> int:
        """An element that counts has a 1 in each of its bytes; plain Python, as all that follow."""
        return self.element_bytes.bit_length() - 1

    def values(self, row: Expr, tile: Expr) -> Sequence[Expr]:
        """128 keys of a row."""
        return [
            self.rows[row, words(tile * self.element_bytes + v)] for v in range(self.element_bytes)
        ]

    def everywhere(self, value: Expr) -> Expr:
        """An int32 scalar that an element holds, in all of them."""
        lanes = VECTOR_BYTES // self.element_bytes
        if self.element_bytes == 4:
            return T.bind(splat_word(value))
        return T.bind(
            T.reinterpret(VECTOR, splat(T.Cast(f"int{8 * self.element_bytes}", value), lanes))
        )

    def count_above(self, row: Expr, tile: Expr, value: Expr) -> None:
        threshold = self.everywhere(value)
        for x in self.values(row, tile):
            above = as_bytes(is_greater(x, threshold, self.element_bytes))
            T.buffer_store(self.sums, add_bytes(self.sums[words(0)], above), [words(0)])

    def byte_each(self, vectors: Sequence[Expr]) -> Expr:
        """Elements 0 or 1 in all their bytes, as a byte each."""
        if self.element_bytes == 4:
            return even_bytes(T.bind(even_halves(*vectors[:2])), T.bind(even_halves(*vectors[2:])))
        return even_bytes(*vectors) if self.element_bytes == 2 else vectors[0]

    def collect(self, row: Expr, tile: Expr) -> None:
        """The list goes on with those of a tile."""
        tied = self.everywhere(self.lowest + self.floor[0] + 1)
        one = T.bind(splat_word(T.int32(in_every_byte(1))))
        values = [T.bind(x) for x in self.values(row, tile)]
        size = self.element_bytes
        larger = self.byte_each([T.bind(as_bytes(is_greater(x, tied, size))) for x in values])
        equal = T.bind(self.byte_each([T.bind(as_bytes(is_equal(x, tied, size))) for x in values]))
        ranks = T.bind(prefix_sum(has_bits(equal, 1)))
        ties = T.bind(T.min(self.ties[0], VECTOR_BYTES))
        late = is_greater_unsigned_byte(ranks, splat_word(ties * T.int32(in_every_byte(1))))
        chosen = T.bind(has_bits(larger | drop_bytes(late, equal), 1))
        T.buffer_store(self.ties, self.ties[0] - T.min(ties, last_byte(ranks)), [0])
        count = self.pack.pack(chosen, one)
        first = T.bind(splat_word(tile * TILE_KEYS))
        for v, part in enumerate(widen_bytes(T.bind(self.pack.packed[words(0)]))):
            T.buffer_store(self.scratch, part + first, [self.count[0] + words(v)])
        T.buffer_store(self.count, self.count[0] + count, [0])

    def listed(self, vector: Expr, wanted: Expr) -> Expr:
        """32 places of the finished list."""
        positions = splat(vector * WORDS, WORDS) + T.ramp(0, 1, WORDS)
        return T.Select(
            positions < splat(wanted, WORDS),
            self.scratch[words(vector)],
            splat(T.int32(NO_KEY), WORDS),
        )
