"""One token times a weight [outputs, depth]: dot products along the rows, as the weight is stored.

The time is that of reading the weight once, so both kernels stream a few rows at a time; each
task's rows are contiguous.
"""

from __future__ import annotations

from typing import Any

from tvm.script import tirx as T

from .constants import QUANT_PER_WORD, QUANT_ZERO_POINT
from .dequantize import NIBBLE_BITS, NIBBLE_MASK, WORDS_PER_GROUP
from .linear_tiles import LinearTile
from .shuffle import concat
from .spec import LinearSpec
from .vector import Expr, const_f32, splat, sum_lanes

HALF_WORD_BITS = 16
NIBBLES_PER_HALF = HALF_WORD_BITS // NIBBLE_BITS


@T.meta_class
class FloatGemv:
    """`y[token] = w @ x[token]` with w (N, K) float32. Make it and call `run` in the PrimFunc."""

    def __init__(self, spec: LinearSpec, tile: LinearTile, w: Any) -> None:
        self.lanes = tile.lanes
        self.rows = min(tile.gemv_outputs, spec.out_features)
        self.spec = spec
        self.w = w

    def vector(self, index: Expr) -> Expr:
        """The element indices of the `index`-th vector."""
        return T.ramp(index * self.lanes, 1, self.lanes)

    @T.inline
    def run(self, x: T.Buffer, y: T.Buffer, token: Expr) -> None:
        """x (M, K), y (M, N) float32; one row of each."""
        tail = T.meta_var(self.spec.in_features % self.lanes)
        for task in T.parallel(T.int64(-(-self.spec.out_features // self.rows))):
            # the last task overlaps the one before it: both write the same bits
            first = T.bind(T.min(task * self.rows, self.spec.out_features - self.rows))
            acc = T.alloc_buffer((self.rows * self.lanes,), "float32")
            for r in T.unroll(self.rows):
                acc[self.vector(r)] = const_f32(0.0, self.lanes)
            for i in range(self.spec.in_features // self.lanes):
                for r in T.unroll(self.rows):
                    acc[self.vector(r)] = (
                        acc[self.vector(r)]
                        + self.w[first + r, self.vector(i)] * x[token, self.vector(i)]
                    )
            for r in T.unroll(self.rows):
                y[token, first + r] = sum_lanes(acc[self.vector(r)], self.lanes)
            if tail > 0:
                for i in range(tail):
                    k = T.bind(self.spec.in_features - tail + i)
                    for r in T.unroll(self.rows):
                        y[token, first + r] = (
                            y[token, first + r] + self.w[first + r, k] * x[token, k]
                        )


@T.meta_class
class QuantizedGemv:
    """`y[token] = dequantize(q_weight, q_scale) @ x[token]`, dequantized in registers.

    A vector of words holds, in nibble j of lane i, weight 8 i + j of a block: so x is reordered
    once per token to meet the nibbles where they are. A nibble isn't shifted down either: masked in
    place it is 16^j times too large, and x is made as much smaller, which is exact. The high half
    of a word is shifted once, which keeps j below 4. The zero point is taken out of the sum:

        sum (q - 7) s x = s (sum q x - 7 sum x)

    What doesn't fill a vector of words is done group by group, 4 words at a time.

    Attributes
    ----------
    x_scaled : (K,) float32, x[8 i + j] / 16^(j mod 4) at [block, j, i].
    x_offset : (K / 8,) float32, -7 times the sum of the eight x of a word.
    """

    def __init__(self, spec: LinearSpec, tile: LinearTile, q_weight: Any, q_scale: Any) -> None:
        self.lanes = tile.lanes
        self.rows = min(tile.quantized_gemv_outputs, spec.out_features)
        self.spec = spec
        self.q_weight = q_weight
        self.q_scale = q_scale
        self.num_words = spec.in_features // QUANT_PER_WORD
        self.tail_words = self.num_words % tile.lanes
        self.x_scaled = T.alloc_buffer((spec.in_features,), "float32")
        self.x_offset = T.alloc_buffer((self.num_words,), "float32")

    @T.inline
    def run(self, x: T.Buffer, y: T.Buffer, token: Expr) -> None:
        """x (M, K), y (M, N) float32; one row of each."""
        whole = T.meta_var(self.num_words - self.tail_words)
        self.reorder(x, token, 0, whole, self.lanes)
        self.reorder(x, token, whole, self.tail_words, WORDS_PER_GROUP)
        for task in T.parallel(T.int64(-(-self.spec.out_features // self.rows))):
            # the last task overlaps the one before it: both write the same bits
            first = T.bind(T.min(task * self.rows, self.spec.out_features - self.rows))
            for r in T.unroll(self.rows):
                y[token, first + r] = T.float32(0)
            self.add_products(y, token, first, 0, whole, self.lanes)
            if self.tail_words > 0:
                self.add_products(y, token, first, whole, self.tail_words, WORDS_PER_GROUP)

    @T.inline
    def reorder(
        self, x: T.Buffer, token: Expr, first_word: int, num_words: int, lanes: int
    ) -> None:
        """Fill x_scaled and x_offset for blocks of `lanes` words."""
        for block in range(num_words // lanes):
            self.reorder_block(x, token, first_word + block * lanes, lanes)

    def reorder_block(self, x: Any, token: Expr, word: Expr, lanes: int) -> None:
        """Emit the reordering of the activations of `lanes` words."""
        total = const_f32(0.0, lanes)
        for j in range(QUANT_PER_WORD):
            first = word * QUANT_PER_WORD
            values = T.bind(x[token, T.ramp(first + j, QUANT_PER_WORD, lanes)])
            total = total + values
            shrink = const_f32(2.0 ** (-NIBBLE_BITS * (j % NIBBLES_PER_HALF)), lanes)
            T.buffer_store(self.x_scaled, values * shrink, [T.ramp(first + j * lanes, 1, lanes)])
        offset = total * const_f32(-float(QUANT_ZERO_POINT), lanes)
        T.buffer_store(self.x_offset, offset, [T.ramp(word, 1, lanes)])

    @T.inline
    def add_products(
        self, y: T.Buffer, token: Expr, first: Expr, first_word: int, num_words: int, lanes: int
    ) -> None:
        """y[token, first : first + rows] += the products of `num_words` words of each row."""
        acc = T.alloc_buffer((self.rows * lanes,), "float32")
        for r in T.unroll(self.rows):
            acc[T.ramp(r * lanes, 1, lanes)] = const_f32(0.0, lanes)
        for block in range(num_words // lanes):
            word = T.bind(first_word + block * lanes)
            for r in T.unroll(self.rows):
                acc[T.ramp(r * lanes, 1, lanes)] = acc[T.ramp(r * lanes, 1, lanes)] + self.scales(
                    first + r, word, lanes
                ) * self.block_product(first + r, word, lanes)
        for r in T.unroll(self.rows):
            y[token, first + r] = y[token, first + r] + sum_lanes(
                acc[T.ramp(r * lanes, 1, lanes)], lanes
            )

    def block_product(self, row: Expr, word: Expr, lanes: int) -> Expr:
        """Sum of (q - 7) x over the eight weights of each of `lanes` words."""
        low = T.bind(self.q_weight[row, T.ramp(word, 1, lanes)])
        high = T.bind(T.shift_right(low, splat(T.uint32(HALF_WORD_BITS), lanes)))
        total = self.x_offset[T.ramp(word, 1, lanes)]
        for j in range(QUANT_PER_WORD):
            half = low if j < NIBBLES_PER_HALF else high
            mask = NIBBLE_MASK << (NIBBLE_BITS * (j % NIBBLES_PER_HALF))
            nibbles = T.bitwise_and(half, splat(T.uint32(mask), lanes))
            # signed conversions are single instructions everywhere, unsigned ones are not
            values = T.Cast(f"float32x{lanes}", T.reinterpret(f"int32x{lanes}", nibbles))
            x_index = T.ramp(word * QUANT_PER_WORD + j * lanes, 1, lanes)
            total = total + values * self.x_scaled[x_index]
        return total

    def scales(self, row: Expr, word: Expr, lanes: int) -> Expr:
        """The scale of each of `lanes` words."""
        first_group = word // WORDS_PER_GROUP
        return concat(
            [
                splat(self.q_scale[row, first_group + group], WORDS_PER_GROUP)
                for group in range(lanes // WORDS_PER_GROUP)
            ],
            WORDS_PER_GROUP,
        )
