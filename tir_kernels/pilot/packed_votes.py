"""Votes on x86, 32 scores at a time in AVX2's registers and 64 in AVX512's: no gathers.

Requantized scores stay 16 bits wide, distances are bytes, and the exponential is four byte shuffles
and a multiply-high. Packing and unpacking work within blocks of 128 bits and undo each other, so
that importance comes out in the order of the keys (`x86.int16`).
"""

from __future__ import annotations

from collections.abc import Callable

from tvm.script import tirx as T

from ..features import CpuFeatures
from ..simd.vector import Expr, splat
from ..x86.int16 import (
    in_every_block,
    interleave_high,
    interleave_low,
    look_up,
    multiply_pairs,
    multiply_round,
    pack_uint8,
)
from .key_shadow import KeyShadow
from .packed_requantize import requantize_pair
from .plan_table import PlanTable
from .pooling import TABLE_BITS, TABLE_ENTRIES
from .quantized_rows import QuantizedRows
from .vote_rows import VoteRows
from .vote_weights import row_inverse, unsigned_sum

_BYTES = 16  # to a block of 128 bits
_WORDS = 8

_PADDING = -(1 << 14)
"""Score of the padding of a row: its distance saturates to the last of the table."""


class PackedVotes(VoteRows):
    """See `votes.votes_of_rows`.

    Attributes
    ----------
    scores : (register_queries, padded keys) int16, two blocks of keys packed into one vector.
    weights : (padded keys,) int16, of one row, likewise.
    """

    def __init__(
        self,
        features: CpuFeatures,
        keys: KeyShadow,
        plan: PlanTable,
        importance: T.Buffer,
        slot: Expr,
    ) -> None:
        super().__init__(features, keys, plan, importance, slot)
        assert self.dot.register_blocks % 2 == 0, "blocks of keys are packed in pairs"
        self.num_words = T.bind(self.padded_keys // (2 * self.lanes))
        self.weights = T.alloc_buffer((self.padded_keys,), "int16")
        self.tables = T.alloc_buffer((4, TABLE_ENTRIES), "uint8")

    def words(self, index: Expr) -> Expr:
        """The positions of the `index`-th vector of 16-bit elements."""
        return T.ramp(index * 2 * self.lanes, 1, 2 * self.lanes)

    @T.inline
    def set_head(self, head: Expr, column: Expr) -> None:
        """The rows that follow are of a head; `column` of the plan's tables."""
        self.multiplier[0] = self.plan.multipliers[head, column]
        self.shift[0] = self.plan.shifts[head, column]
        self.factors.set_step(self.plan.steps[head, column])
        for i in range(TABLE_ENTRIES):
            self.tables[0, i] = T.Cast("uint8", self.factors.high[i] & 255)
            self.tables[1, i] = T.Cast("uint8", T.shift_right(self.factors.high[i], 8))
            self.tables[2, i] = T.Cast("uint8", self.factors.low[i] & 255)
            self.tables[3, i] = T.Cast("uint8", T.shift_right(self.factors.low[i], 8))

    @T.inline
    def put(self, pilot: QuantizedRows, sums: T.Buffer, tile: Expr) -> None:
        for q in T.unroll(self.dot.register_queries):
            for pair in T.unroll(self.dot.register_blocks // 2):
                self.scores[
                    q,
                    T.ramp(
                        tile * self.dot.register_keys + pair * 2 * self.lanes, 1, 2 * self.lanes
                    ),
                ] = self.requantized(
                    sums[pilot.cell(q, pair * 2)], sums[pilot.cell(q, pair * 2 + 1)]
                )

    def requantized(self, x: Expr, y: Expr) -> Expr:
        """Two blocks of scores, half a unit added already, requantized, in 16 bits."""
        scaled = requantize_pair(x, y, self.multiplier[0], self.shift[0], self.lanes)
        most, least = T.int16(self.score_max), T.int16(-self.score_max)
        return T.max(T.min(scaled, splat(most, 2 * self.lanes)), splat(least, 2 * self.lanes))

    @T.inline
    def pad(self, row: Expr) -> None:
        """The padding of a row is further from its maximum than any key. In the last vectors keys
        and padding mix, in the order of packing."""
        for v in range(self.num_words - self.keys.num_keys // (2 * self.lanes)):
            word = T.bind(self.keys.num_keys // (2 * self.lanes) + v)
            for i in T.unroll(2 * self.lanes):
                if word * 2 * self.lanes + self.key_of(i) >= self.keys.num_keys:
                    self.scores[row, word * 2 * self.lanes + i] = T.int16(_PADDING)

    def key_of(self, element: Expr) -> Expr:
        """Which of a vector's keys an element is: packing takes 4 of one block of keys, then 4 of
        the other."""
        half = _WORDS // 2
        block, place = element // _WORDS, element % _WORDS
        return place // half * self.lanes + block * half + place % half

    @T.inline
    def add(self, row: Expr) -> None:
        """importance += the probabilities of a query of the register tile."""
        most = T.alloc_buffer((2 * self.lanes,), "int16")
        total = T.alloc_buffer((self.lanes,), "int32")
        self.pad(row)
        most[self.words(0)] = splat(T.int16(_PADDING), 2 * self.lanes)
        for v in range(self.num_words):
            most[self.words(0)] = T.max(most[self.words(0)], self.scores[row, self.words(v)])
        largest = T.bind(
            T.call_llvm_pure_intrin(
                "int16", f"llvm.vector.reduce.smax.v{2 * self.lanes}i16", most[self.words(0)]
            )
        )
        total[self.ints(0)] = splat(T.int32(0), self.lanes)
        for pair in range(self.num_words // 2):
            self.weigh(row, pair * 2, largest, total)
        padding = T.bind(self.padded_keys - self.keys.num_keys)
        weight_sum = T.bind(
            unsigned_sum(total[self.ints(0)], self.lanes)
            - T.Cast("int64", padding) * self.factors.last_weight()
        )
        inverse, shift = row_inverse(weight_sum)
        for v in range(self.num_words):
            self.count(v, inverse, shift)

    @T.inline
    def weigh(self, row: Expr, first: Expr, largest: Expr, total: T.Buffer) -> None:
        """`weights` of two vectors of scores from the `first`-th on; their sums join `total`."""
        top = T.meta_var(splat(largest, 2 * self.lanes))
        distance = T.bind(
            pack_uint8(
                top - self.scores[row, self.words(first)],
                top - self.scores[row, self.words(first + 1)],
                self.lanes,
            )
        )
        nibble = T.meta_var(splat(T.uint8(TABLE_ENTRIES - 1), 4 * self.lanes))
        low = T.bind(distance & nibble)
        high = T.bind(
            T.reinterpret(
                f"uint8x{4 * self.lanes}",
                T.shift_right(
                    T.reinterpret(f"uint16x{2 * self.lanes}", distance),
                    splat(T.uint16(TABLE_BITS), 2 * self.lanes),
                ),
            )
            & nibble
        )
        high_bytes = T.bind(self.factor_byte(0, high))
        high_tops = T.bind(self.factor_byte(1, high))
        low_bytes = T.bind(self.factor_byte(2, low))
        low_tops = T.bind(self.factor_byte(3, low))
        even = T.bind(
            multiply_round(
                self.joined(interleave_low, high_bytes, high_tops),
                self.joined(interleave_low, low_bytes, low_tops),
                self.lanes,
            )
        )
        odd = T.bind(
            multiply_round(
                self.joined(interleave_high, high_bytes, high_tops),
                self.joined(interleave_high, low_bytes, low_tops),
                self.lanes,
            )
        )
        self.weights[self.words(first)] = even
        self.weights[self.words(first + 1)] = odd
        ones = T.meta_var(splat(T.int16(1), 2 * self.lanes))
        total[self.ints(0)] = (
            total[self.ints(0)]
            + multiply_pairs(even, ones, self.lanes)
            + multiply_pairs(odd, ones, self.lanes)
        )

    def factor_byte(self, table: int, index: Expr) -> Expr:
        """One byte of a factor, for each of a vector of indices."""
        block = self.tables[table, T.ramp(0, 1, TABLE_ENTRIES)]
        return look_up(in_every_block(block, self.lanes), index, self.lanes)

    def joined(self, interleave: Callable[..., Expr], bytes_: Expr, tops: Expr) -> Expr:
        """Low and high bytes as 16-bit elements."""
        return T.reinterpret(
            f"int16x{2 * self.lanes}", interleave(bytes_, tops, 4 * self.lanes, _BYTES)
        )

    @T.inline
    def count(self, v: Expr, inverse: Expr, shift: Expr) -> None:
        """Normalize the `v`-th vector of weights and add it to the importance of its keys."""
        zeros = T.meta_var(splat(T.int16(0), 2 * self.lanes))
        factor = T.meta_var(splat(inverse, self.lanes))
        weights = T.bind(self.weights[self.words(v)])
        low = T.meta_var(interleave_low(weights, zeros, 2 * self.lanes, _WORDS))
        high = T.meta_var(interleave_high(weights, zeros, 2 * self.lanes, _WORDS))
        self.vote(self.ints(2 * v), self.products(low, factor), shift)
        self.vote(self.ints(2 * v + 1), self.products(high, factor), shift)

    @T.inline
    def vote(self, keys: Expr, products: Expr, shift: Expr) -> None:
        self.importance[self.slot, keys] = self.importance[self.slot, keys] + T.shift_right(
            products, splat(shift, self.lanes)
        )

    def products(self, weights: Expr, factor: Expr) -> Expr:
        """int32 products; every other int16 of `weights` is zero, as is of `factor`."""
        return multiply_pairs(weights, T.reinterpret(f"int16x{2 * self.lanes}", factor), self.lanes)
