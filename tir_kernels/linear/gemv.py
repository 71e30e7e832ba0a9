"""One token times a weight [outputs, depth]: dot products along the rows, as the weight is stored.

The time is that of reading the weight once. Rows are read front to back: plain rows a few side by
side, which keeps more loads in flight; the much shorter 4-bit rows one by one, because there
several streams at once cost the hardware prefetcher half its speed.
"""

from __future__ import annotations

from typing import Any

from tvm.script import tirx as T

from ..constants import QUANT_PER_WORD, QUANT_ZERO_POINT
from ..simd.shuffle import concat, pick
from ..simd.storage import as_float32, as_stored
from ..simd.vector import Expr, const_f32, splat, sum_lanes
from ..spec import LinearSpec
from .dequantize import NIBBLE_BITS, NIBBLE_MASK, WORDS_PER_GROUP
from .tiles import LinearTile

HALF_WORD_BITS = 16
NIBBLES_PER_HALF = HALF_WORD_BITS // NIBBLE_BITS


@T.meta_class
class FloatGemv:
    """`y[token] = w @ x[token]` with w (N, K). Make it and call `run` in the PrimFunc.

    Attributes
    ----------
    x_row : (1, K) float32, a token's row where x is float16: converted once, used by every output.
    """

    def __init__(self, spec: LinearSpec, tile: LinearTile, w: Any) -> None:
        self.lanes = tile.lanes
        self.rows = min(tile.gemv_outputs, spec.out_features)
        self.spec = spec
        self.w = w
        self.widened = spec.dtype != "float32"
        if self.widened:
            self.x_row = T.alloc_buffer((1, spec.in_features), "float32")

    def vector(self, index: Expr) -> Expr:
        """The element indices of the `index`-th vector."""
        return T.ramp(index * self.lanes, 1, self.lanes)

    @T.inline
    def run(self, x: T.Buffer, y: T.Buffer, token: Expr) -> None:
        """x (M, K), y (M, N); one row of each."""
        if self.widened:
            for k in range(self.spec.in_features):
                self.x_row[0, k] = as_float32(x[token, k])
            self.multiply(self.x_row, y, 0, token)
        else:
            self.multiply(x, y, token, token)

    @T.inline
    def multiply(self, x: T.Buffer, y: T.Buffer, row: Expr, token: Expr) -> None:
        """`y[token] = w @ x[row]`, x float32."""
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
                        + as_float32(self.w[first + r, self.vector(i)]) * x[row, self.vector(i)]
                    )
            dots = T.alloc_buffer((self.rows,), "float32")
            for r in T.unroll(self.rows):
                dots[r] = sum_lanes(acc[self.vector(r)], self.lanes)
            for i in range(tail):
                k = T.bind(self.spec.in_features - tail + i)
                for r in T.unroll(self.rows):
                    dots[r] = dots[r] + as_float32(self.w[first + r, k]) * x[row, k]
            # written once and never read: overlapping tasks may run at the same time
            for r in T.unroll(self.rows):
                y[token, first + r] = as_stored(dots[r], y.dtype)


@T.meta_class
class QuantizedGemv:
    """`y[token] = dequantize(q_weight, q_scale) @ x[token]`, dequantized in registers.

    A vector of words holds, in nibble j of lane i, weight 8 i + j of a block: so x is reordered
    once per token to meet the nibbles where they are. A nibble isn't shifted down either: masked in
    place it is 16^j times too large, and x is made as much smaller, which is exact. The high half
    of a word is shifted once, which keeps j below 4. The zero point is taken out of the sum:

        sum (q - 7) s x = s (sum q x - 7 sum x)

    What doesn't fill a vector of words is done group by group, four words at a time.

    Attributes
    ----------
    x_scaled : (K,) float32, x[8 i + j] / 16^(j mod 4) at [block, j, i].
    x_offset : (K / 8,) float32, -7 times the sum of the eight x of a word.
    """

    def __init__(self, spec: LinearSpec, tile: LinearTile, q_weight: Any, q_scale: Any) -> None:
        self.lanes = tile.lanes
        self.spec = spec
        self.q_weight = q_weight
        self.q_scale = q_scale
        self.num_words = spec.in_features // QUANT_PER_WORD
        self.tail_words = self.num_words % tile.lanes
        self.x_scaled = T.alloc_buffer((spec.in_features,), "float32")
        self.x_offset = T.alloc_buffer((self.num_words,), "float32")

    @T.inline
    def run(self, x: T.Buffer, y: T.Buffer, token: Expr) -> None:
        """x (M, K), y (M, N); one row of each."""
        whole = T.meta_var(self.num_words - self.tail_words)
        for block in range(whole // self.lanes):
            self.reorder(x, token, block * self.lanes, self.lanes)
        for block in range(self.tail_words // WORDS_PER_GROUP):
            self.reorder(x, token, whole + block * WORDS_PER_GROUP, WORDS_PER_GROUP)
        for output in T.parallel(T.int64(self.spec.out_features)):
            acc = T.alloc_buffer((self.lanes,), "float32")
            tail = T.alloc_buffer((WORDS_PER_GROUP,), "float32")
            acc[T.ramp(0, 1, self.lanes)] = const_f32(0.0, self.lanes)
            tail[T.ramp(0, 1, WORDS_PER_GROUP)] = const_f32(0.0, WORDS_PER_GROUP)
            for block in range(whole // self.lanes):
                self.add_products(acc, output, block * self.lanes, self.lanes)
            for block in range(self.tail_words // WORDS_PER_GROUP):
                self.add_products(tail, output, whole + block * WORDS_PER_GROUP, WORDS_PER_GROUP)
            y[token, output] = as_stored(
                sum_lanes(acc[T.ramp(0, 1, self.lanes)], self.lanes)
                + sum_lanes(tail[T.ramp(0, 1, WORDS_PER_GROUP)], WORDS_PER_GROUP),
                y.dtype,
            )

    def reorder(self, x: Any, token: Expr, word: Expr, lanes: int) -> None:
        """Emit the filling of x_scaled and x_offset for a block of `lanes` words."""
        total = const_f32(0.0, lanes)
        for j in range(QUANT_PER_WORD):
            first = word * QUANT_PER_WORD
            values = T.bind(as_float32(x[token, T.ramp(first + j, QUANT_PER_WORD, lanes)]))
            total = total + values
            shrink = const_f32(2.0 ** (-NIBBLE_BITS * (j % NIBBLES_PER_HALF)), lanes)
            T.buffer_store(self.x_scaled, values * shrink, [T.ramp(first + j * lanes, 1, lanes)])
        offset = total * const_f32(-float(QUANT_ZERO_POINT), lanes)
        T.buffer_store(self.x_offset, offset, [T.ramp(word, 1, lanes)])

    def add_products(self, acc: Any, row: Expr, word: Expr, lanes: int) -> None:
        """Emit `acc += scale * sum of (q - 7) x`, lane by lane, for a block of `lanes` words."""
        low = T.bind(self.q_weight[row, T.ramp(word, 1, lanes)])
        high = T.bind(T.shift_right(low, splat(T.uint32(HALF_WORD_BITS), lanes)))
        sums = [self.x_offset[T.ramp(word, 1, lanes)], const_f32(0.0, lanes)]  # shorter chains
        for j in range(QUANT_PER_WORD):
            half, position = divmod(j, NIBBLES_PER_HALF)
            mask = T.uint32(NIBBLE_MASK << (NIBBLE_BITS * position))
            nibbles = T.bitwise_and((low, high)[half], splat(mask, lanes))
            # signed conversions are single instructions everywhere, unsigned ones are not
            values = T.Cast(f"float32x{lanes}", T.reinterpret(f"int32x{lanes}", nibbles))
            where = T.ramp(word * QUANT_PER_WORD + j * lanes, 1, lanes)
            sums[half] = sums[half] + values * self.x_scaled[where]
        scales = self.scales(row, word, lanes)
        lane = T.ramp(0, 1, lanes)
        T.buffer_store(acc, acc[lane] + scales * (sums[0] + sums[1]), [lane])

    def scales(self, row: Expr, word: Expr, lanes: int) -> Expr:
        """The scale of each of `lanes` words."""
        first_group, groups = word // WORDS_PER_GROUP, lanes // WORDS_PER_GROUP
        if self.spec.dtype == "float32" or groups == 1:
            scales = [as_float32(self.q_scale[row, first_group + g]) for g in range(groups)]
        else:  # converted together, then taken apart
            stored = self.q_scale[row, T.ramp(first_group, 1, groups)]
            together = T.bind(as_float32(stored))
            scales = [pick([together], [group]) for group in range(groups)]
        return concat([splat(scale, WORDS_PER_GROUP) for scale in scales], WORDS_PER_GROUP)
