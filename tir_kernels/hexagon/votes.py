"""The votes of the rows of a register tile, by HVX: the contract of `pilot.pooling`.

Scores and weights lie in (QUERIES, N / 2) int32 each, two halfwords a word. They are two buffers,
so that LLVM may load the next scores before it stores weights.
"""

from __future__ import annotations

from tvm.script import tirx as T

from ..constants import MASKED_SCORE
from ..pilot.pooling import INVERSE_BITS, ROW_BITS, TABLE_ENTRIES
from ..pilot.vote_weights import WeightTables
from ..simd.vector import Expr, splat
from .graph_spec import PilotGraphSpec
from .hvx import (
    HALVES,
    WORDS,
    add_half_pairs,
    add_shifted_words,
    interleave,
    look_up,
    max_halves,
    max_of_halves,
    multiply_halves,
    saturate_to_bytes,
    shift_halves_right,
    splat_word,
    subtract_halves,
    sum_of_words,
    widening_products,
    words,
)
from .inverse import row_inverse
from .limits import TileLimits
from .requantize import (
    in_both_halves,
    in_both_halves_constant,
    requantize_halves,
)
from .score_tile import BLOCKS, QUERIES, TILE_KEYS, ScoreTile

PADDING = -(1 << 14)
"""Score of keys that don't count: they weigh what the table's last distance does, and are taken off
the sum of weights."""

_TABLE_BITS = 4


@T.meta_class
class TileVotes:
    """Made inside a kernel.

    Parameters
    ----------
    importance : (units * lists, N) int32.
    scores, weights : (QUERIES, N / 2) int32, overwritten.
    num_keys : keys that count.
    """

    def __init__(
        self,
        spec: PilotGraphSpec,
        importance: T.Buffer,
        scores: T.Buffer,
        weights: T.Buffer,
        num_keys: Expr,
    ) -> None:
        self.lists = spec.lists
        self.all_vectors = spec.keys // HALVES
        self.own_lists = spec.list_rows == 1
        self.score_max = spec.pilot.score_max
        self.importance = importance
        self.scores = scores
        self.weights = weights
        self.num_keys = num_keys
        self.tiles = T.bind(T.ceildiv(num_keys, TILE_KEYS))
        self.vectors = T.bind(self.tiles * (TILE_KEYS // HALVES))
        self.limits = TileLimits(HALVES, spec.pilot.score_max, PADDING, num_keys)
        self.factors = WeightTables()
        self.tables = T.alloc_buffer((2, WORDS), "int32")
        self.most = [T.alloc_buffer((WORDS,), "int32") for _ in range(QUERIES)]
        self.totals = [T.alloc_buffer((WORDS,), "int32") for _ in range(QUERIES)]
        self.inverses = T.alloc_buffer((QUERIES,), "int32")
        self.shifts = T.alloc_buffer((QUERIES,), "int32")

    @T.inline
    def start(self) -> None:
        """Once, before all else."""
        self.factors.start()
        self.limits.start()

    @T.inline
    def clear(self, first_list: Expr) -> None:
        """A unit's lists, from `first_list` on, have no votes yet."""
        for row in range(first_list, first_list + self.lists):
            for v in range(2 * self.vectors):
                self.importance[row, words(v)] = splat_word(T.int32(0))

    @T.inline
    def set_step(self, step: Expr) -> None:
        """The rows that follow are of a head with this step."""
        self.factors.set_step(step)
        for i in range(TABLE_ENTRIES):
            self.tables[0, i] = self.factors.high[i]
            self.tables[1, i] = self.factors.low[i]

    def start_rows(self) -> None:
        """Plain Python, as all that follow without `T.inline`."""
        for most in self.most:
            T.buffer_store(most, splat_word(T.int32(in_both_halves_constant(PADDING))), [words(0)])

    def take_scores(self, sums: ScoreTile, tile: Expr, multipliers: Expr, shift: Expr) -> None:
        """Requantize a tile, keep it, and remember the largest."""
        for pair in range(BLOCKS // 2):
            vector = tile * (BLOCKS // 2) + pair
            limits = T.bind(self.limits.of(tile, pair))
            for q, most in enumerate(self.most):
                blocks = sums.values(q)
                scores = T.bind(
                    requantize_halves(
                        blocks[2 * pair],
                        blocks[2 * pair + 1],
                        multipliers,
                        shift,
                        self.score_max,
                        limits,
                    )
                )
                T.buffer_store(self.scores, scores, [q, words(vector)])
                T.buffer_store(most, max_halves(most[words(0)], scores), [words(0)])

    @T.inline
    def vote(self, first_list: Expr, filled: Expr) -> None:
        """Add the probabilities of the first `filled` rows to list `first_list`, or, where every
        row has a list of its own, to the lists from there on."""
        self.start_totals()
        for pair in range(self.tiles):
            self.weigh(pair)
        self.invert(filled)
        for v in range(self.vectors):
            self.add(first_list, v)

    def start_totals(self) -> None:
        for most, total in zip(self.most, self.totals, strict=True):
            T.buffer_store(most, max_of_halves(most[words(0)]), [words(0)])
            T.buffer_store(total, splat_word(T.int32(0)), [words(0)])

    def weigh(self, pair: Expr) -> None:
        """Scores to weights, 128 keys of every row."""
        high_table, low_table = (T.bind(self.tables[i, words(0)]) for i in range(2))
        for q, (most, total) in enumerate(zip(self.most, self.totals, strict=True)):
            distances = [
                T.bind(subtract_halves(most[words(0)], self.scores[q, words(2 * pair + i)]))
                for i in range(2)
            ]
            indices = T.bind(saturate_to_bytes(*distances))
            high = look_up(shift_halves_right(indices, T.int32(_TABLE_BITS)), high_table)
            low = look_up(indices, low_table)
            for i in range(2):
                weights = T.bind(multiply_halves(high[i], low[i]))
                T.buffer_store(self.weights, weights, [q, words(2 * pair + i)])
                T.buffer_store(total, add_half_pairs(total[words(0)], weights), [words(0)])

    def invert(self, filled: Expr) -> None:
        """R and the shift of every row; 0 for R lets a row have no say."""
        padding = T.bind(self.tiles * TILE_KEYS - self.num_keys)
        surplus = T.bind(padding * T.Cast("int32", self.factors.last_weight()))
        for q, total in enumerate(self.totals):
            inverse, bits = row_inverse(T.bind(sum_of_words(total[words(0)]) - surplus))
            factor = T.Select(q < filled, in_both_halves(inverse), T.int32(0))
            T.buffer_store(self.inverses, factor, [q])
            T.buffer_store(self.shifts, bits + (INVERSE_BITS - ROW_BITS), [q])

    def add(self, first_list: Expr, vector: Expr) -> None:
        """Probabilities of 64 keys; those of even keys lie in the first 32 words."""
        votes: dict[int, list[Expr]] = {}
        for q in range(QUERIES):
            row = q if self.own_lists else 0
            if row not in votes:
                votes[row] = [
                    T.bind(self.importance[first_list + row, words(2 * vector + half)])
                    for half in range(2)
                ]
            products = widening_products(self.weights[q, words(vector)], self.inverses[q])
            votes[row] = [
                T.bind(add_shifted_words(sums, x, self.shifts[q]))
                for sums, x in zip(votes[row], products, strict=True)
            ]
        for row, halves in votes.items():
            for half, sums in enumerate(halves):
                T.buffer_store(self.importance, sums, [first_list + row, words(2 * vector + half)])

    @T.inline
    def close(self, first_list: Expr) -> None:
        """A unit's importances in the order of keys, those beyond the last one masked."""
        for row in range(first_list, first_list + self.lists):
            for v in range(self.vectors):
                self.order(row, v)
            for v in range(2 * self.vectors, 2 * self.all_vectors):
                self.importance[row, words(v)] = splat_word(T.int32(MASKED_SCORE))

    def order(self, row: Expr, vector: Expr) -> None:
        halves = [T.bind(self.importance[row, words(2 * vector + half)]) for half in range(2)]
        for half, x in enumerate(interleave(halves[0], halves[1], 4)):
            first = (2 * vector + half) * WORDS
            positions = splat(first, WORDS) + T.ramp(0, 1, WORDS)
            masked = T.Select(
                positions < splat(self.num_keys, WORDS), x, splat(T.int32(MASKED_SCORE), WORDS)
            )
            T.buffer_store(self.importance, masked, [row, words(2 * vector + half)])
