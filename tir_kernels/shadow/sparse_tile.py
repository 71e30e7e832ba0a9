"""One tile of queries of one head, each over its own list of keys: exact, two passes.

A list per query leaves no register blocking over queries, so the work is arranged for the caches
instead: a tile of queries walks through the keys block by block, and each query handles the part of
its ascending list that lies in the block. Scores first, then the softmax, then the values in a
second walk. Within a query, keys are taken `lanes` at a time, so that their scores make a vector.
(One class and its steps, read together: hence a file of 300 lines.)

Source: "Dynamic Sparse Attention on Mobile SoCs", the sparse attention of the online stage.
"""

from __future__ import annotations

from collections.abc import Sequence

from tvm.script import tirx as T

from ..constants import EMPTY_LSE, LOG2_E
from ..features import CpuFeatures
from ..head_rest import HeadRest
from ..simd.shuffle import BLOCK_LANES, pick
from ..simd.storage import as_float32, as_stored
from ..simd.vector import Expr, const_f32, exp2, max_lanes, splat, sum_lanes
from ..spec import AttentionSpec

KEY_BLOCK = 128
"""Keys, or values, that a tile of queries visits before it moves on: few enough to stay in L1 or
L2 (32 to 128 KiB), enough that a query finds some tens of its own there."""

ROW_VECTORS = 8
"""Vectors of a query, or of the output, held in registers while a list's rows pass by; longer ones
are taken in parts. 16 registers leave as many for sums and loads."""

END_OF_LIST = 2**31 - 1
"""Closes a list; above every key index."""

_NO_SCORE = -1.0e30
"""Where the running maximum starts."""


def sum_vectors(vectors: Sequence[Expr], lanes: int) -> Expr:
    """One vector whose lane i is the sum over the lanes of vectors[i], `lanes` of them.

    Adds neighbours, of two vectors at a time: first lanes within the 128-bit blocks, which is one
    instruction where the target adds horizontally, then whole blocks.
    """
    starts = range(0, lanes, BLOCK_LANES)
    even_lanes = [s + lane for s in starts for lane in (0, 2, lanes, lanes + 2)]
    even_blocks = [2 * s + lane for s in starts for lane in range(BLOCK_LANES)]
    while len(vectors) > 1:
        within_blocks = len(vectors) > lanes // BLOCK_LANES
        even, step = (even_lanes, 1) if within_blocks else (even_blocks, BLOCK_LANES)
        odd = [lane + step for lane in even]
        pairs = zip(vectors[::2], vectors[1::2], strict=True)
        vectors = [T.bind(pick(pair, even) + pick(pair, odd)) for pair in pairs]
    return vectors[0]


@T.meta_class
class SparseTile:
    """The state and the steps of a tile of queries with a list each, inside the PrimFunc::

        tile = SparseTile(spec, features, max_queries, capacity)
        for each query i:
            tile.load(q_rows, row, i)
            ...  # fill tile.indices[i] and tile.counts[i]
        tile.attend(k_rows, v_rows, row_table, key_offset, value_offset, num_queries, num_keys)
        for each query i:
            tile.store(output, lse, query, head, i)

    Attributes
    ----------
    indices : (max_queries, capacity) int32, the caller's: ascending key indices. `capacity` is at
        least the longest list plus `lanes`.
    counts : (max_queries,) int32, the caller's: the lengths of the lists, possibly 0.
    q : (max_queries, D) float32, queries times sm_scale * log2(e).
    weights : (max_queries, capacity) float32, base-2 scores, then weights.
    o : (max_queries, D) float32, the weighted sum of the values so far.
    weight_sum, lse : (max_queries,) float32.
    cursors : (max_queries,) int32, where each list goes on.
    """

    def __init__(
        self, spec: AttentionSpec, features: CpuFeatures, max_queries: int, capacity: Expr
    ) -> None:
        dim = spec.head_dim
        self.dim = dim
        self.lanes = features.lanes
        self.vectors = dim // features.lanes
        self.q_scale = spec.sm_scale * LOG2_E
        self.indices = T.alloc_buffer((max_queries, capacity), "int32")
        self.weights = T.alloc_buffer((max_queries, capacity), "float32")
        self.counts = T.alloc_buffer((max_queries,), "int32")
        self.cursors = T.alloc_buffer((max_queries,), "int32")
        self.q = T.alloc_buffer((max_queries, dim), "float32")
        self.o = T.alloc_buffer((max_queries, dim), "float32")
        self.weight_sum = T.alloc_buffer((max_queries,), "float32")
        self.lse = T.alloc_buffer((max_queries,), "float32")

    def vector(self, index: Expr, base: Expr = 0) -> Expr:
        """The element indices of the `index`-th vector after `base`."""
        return T.ramp(base + index * self.lanes, 1, self.lanes)

    @T.inline
    def load(self, q_rows: T.Buffer, row: Expr, i: Expr) -> None:
        """Query i = `q_rows[row]` of q_rows (any, D)."""
        for j in T.unroll(self.vectors):
            self.q[i, self.vector(j)] = as_float32(q_rows[row, self.vector(j)]) * const_f32(
                self.q_scale, self.lanes
            )

    @T.inline
    def attend(
        self,
        k_rows: T.Buffer,
        v_rows: T.Buffer,
        row_table: T.Buffer,
        key_offset: Expr,
        value_offset: Expr,
        num_queries: Expr,
        num_keys: Expr,
        rest: HeadRest | None = None,
    ) -> None:
        """Key j has K in `k_rows[row_table[j] + key_offset]`, V in
        `v_rows[row_table[j] + value_offset]`; both (any, D), possibly the same buffer. With `rest`,
        queries attend to what it stands for, too."""
        for i in range(num_queries):
            self.close_list(i)
        for block in range(T.ceildiv(num_keys, KEY_BLOCK)):
            for i in range(num_queries):
                while self.indices[i, self.cursors[i]] < (block + 1) * KEY_BLOCK:
                    self.score(k_rows, row_table, key_offset, i, self.cursors[i])
                    self.cursors[i] = self.cursors[i] + self.lanes
        for i in range(num_queries):
            self.weigh(i)
        for block in range(T.ceildiv(num_keys, KEY_BLOCK)):
            for i in range(num_queries):
                start = T.bind(self.cursors[i])
                while self.indices[i, self.cursors[i]] < (block + 1) * KEY_BLOCK:
                    self.cursors[i] = self.cursors[i] + self.lanes
                self.add_values(v_rows, row_table, value_offset, i, start, self.cursors[i])
        if rest is not None:
            if rest.left_out > 0:
                for i in range(num_queries):
                    self.add_rest(rest, i)

    @T.inline
    def close_list(self, i: Expr) -> None:
        """Fill the last vector of the list with its last index, and mark the end."""
        for p in range(T.ceildiv(self.counts[i], self.lanes) * self.lanes - self.counts[i]):
            self.indices[i, self.counts[i] + p] = self.indices[i, self.counts[i] - 1]
        self.indices[i, T.ceildiv(self.counts[i], self.lanes) * self.lanes] = END_OF_LIST
        self.cursors[i] = 0

    @T.inline
    def score(
        self, k_rows: T.Buffer, row_table: T.Buffer, key_offset: Expr, i: Expr, start: Expr
    ) -> None:
        """The scores of the `lanes` list entries from `start` on."""
        # Two buffers, each small enough (below 1,024 bytes) for TVM to leave it on the stack.
        even = T.alloc_buffer((self.lanes // 2 * self.lanes,), "float32")
        odd = T.alloc_buffer((self.lanes // 2 * self.lanes,), "float32")
        for pair in T.unroll(self.lanes // 2):
            even[self.vector(pair)] = const_f32(0.0, self.lanes)
            odd[self.vector(pair)] = const_f32(0.0, self.lanes)
        for part in T.unroll(self.vectors // ROW_VECTORS):
            for pair in T.unroll(self.lanes // 2):
                entry = T.bind(start + pair * 2)
                first = T.meta_var(part * ROW_VECTORS)
                self.score_key(
                    k_rows, row_table, key_offset, i, entry, first, ROW_VECTORS, even, pair
                )
                self.score_key(
                    k_rows, row_table, key_offset, i, entry + 1, first, ROW_VECTORS, odd, pair
                )
        if self.vectors % ROW_VECTORS > 0:
            for pair in T.unroll(self.lanes // 2):
                entry = T.bind(start + pair * 2)
                rest = T.meta_var(self.vectors % ROW_VECTORS)
                first = T.meta_var(self.vectors - rest)
                self.score_key(k_rows, row_table, key_offset, i, entry, first, rest, even, pair)
                self.score_key(k_rows, row_table, key_offset, i, entry + 1, first, rest, odd, pair)
        self.weights[i, self.vector(0, start)] = sum_vectors(
            [
                partial[self.vector(pair)]
                for pair in range(self.lanes // 2)
                for partial in (even, odd)
            ],
            self.lanes,
        )

    @T.inline
    def score_key(
        self,
        k_rows: T.Buffer,
        row_table: T.Buffer,
        key_offset: Expr,
        i: Expr,
        entry: Expr,
        first_vector: Expr,
        num_vectors: int,
        partial: T.Buffer,
        slot: Expr,
    ) -> None:
        """Vector `slot` of `partial` += q[i] times the key of a list entry, for `num_vectors`
        vectors of the row from `first_vector` on; the lanes aren't summed yet."""
        row = T.bind(T.Cast("int64", row_table[self.indices[i, entry]] + key_offset))
        for j in T.unroll(num_vectors):
            partial[self.vector(slot)] = partial[self.vector(slot)] + self.q[
                i, self.vector(first_vector + j)
            ] * as_float32(k_rows[row, self.vector(first_vector + j)])

    @T.inline
    def weigh(self, i: Expr) -> None:
        """Scores become weights, padding's zero; o = 0; the list starts over."""
        largest = T.alloc_buffer((self.lanes,), "float32")
        total = T.alloc_buffer((self.lanes,), "float32")
        padded = T.bind(T.ceildiv(self.counts[i], self.lanes))
        largest[self.vector(0)] = const_f32(_NO_SCORE, self.lanes)
        total[self.vector(0)] = const_f32(0.0, self.lanes)
        for v in range(padded):
            largest[self.vector(0)] = T.max(
                largest[self.vector(0)], self.weights[i, self.vector(v)]
            )
        most = T.bind(max_lanes(largest[self.vector(0)], self.lanes))
        for v in range(padded):
            self.weights[i, self.vector(v)] = exp2(
                self.weights[i, self.vector(v)] - splat(most, self.lanes), self.lanes
            )
        for p in range(padded * self.lanes - self.counts[i]):
            self.weights[i, self.counts[i] + p] = T.float32(0)
        for v in range(padded):
            total[self.vector(0)] = total[self.vector(0)] + self.weights[i, self.vector(v)]
        self.weight_sum[i] = sum_lanes(total[self.vector(0)], self.lanes)
        self.lse[i] = most + T.log2(self.weight_sum[i])
        for j in T.unroll(self.vectors):
            self.o[i, self.vector(j)] = const_f32(0.0, self.lanes)
        self.cursors[i] = 0

    @T.inline
    def add_values(
        self,
        v_rows: T.Buffer,
        row_table: T.Buffer,
        value_offset: Expr,
        i: Expr,
        start: Expr,
        stop: Expr,
    ) -> None:
        """o += weights.V over the list entries `start : stop`."""
        if stop > start:
            for part in range(self.vectors // ROW_VECTORS):
                self.add_value_vectors(
                    v_rows,
                    row_table,
                    value_offset,
                    i,
                    start,
                    stop,
                    part * ROW_VECTORS,
                    ROW_VECTORS,
                )
            if self.vectors % ROW_VECTORS > 0:
                self.add_value_vectors(
                    v_rows,
                    row_table,
                    value_offset,
                    i,
                    start,
                    stop,
                    self.vectors - self.vectors % ROW_VECTORS,
                    self.vectors % ROW_VECTORS,
                )

    @T.inline
    def add_value_vectors(
        self,
        v_rows: T.Buffer,
        row_table: T.Buffer,
        value_offset: Expr,
        i: Expr,
        start: Expr,
        stop: Expr,
        first_vector: Expr,
        num_vectors: int,
    ) -> None:
        """`add_values` for `num_vectors` vectors of the output from `first_vector` on."""
        acc = T.alloc_buffer((ROW_VECTORS * self.lanes,), "float32")
        for j in T.unroll(num_vectors):
            acc[self.vector(j)] = self.o[i, self.vector(first_vector + j)]
        for p in range(stop - start):
            row = T.bind(T.Cast("int64", row_table[self.indices[i, start + p]] + value_offset))
            for j in T.unroll(num_vectors):
                acc[self.vector(j)] = acc[self.vector(j)] + splat(
                    self.weights[i, start + p], self.lanes
                ) * as_float32(v_rows[row, self.vector(first_vector + j)])
        for j in T.unroll(num_vectors):
            self.o[i, self.vector(first_vector + j)] = acc[self.vector(j)]

    @T.inline
    def add_rest(self, rest: HeadRest, i: Expr) -> None:
        """Merge the rest into o, weight_sum and lse, as two parts of one softmax; the list isn't
        empty."""
        products = T.alloc_buffer((self.lanes,), "float32")
        products[self.vector(0)] = const_f32(0.0, self.lanes)
        for j in T.unroll(self.vectors):
            products[self.vector(0)] = (
                products[self.vector(0)]
                + self.q[i, self.vector(j)] * rest.means[rest.key, self.vector(j)]
            )
        of_rest = T.bind(
            sum_lanes(products[self.vector(0)], self.lanes)
            + T.log2(T.Cast("float32", rest.left_out))
        )
        largest = T.bind(T.max(self.lse[i], of_rest))
        list_weight = T.bind(exp2(self.lse[i] - largest, 1))
        rest_weight = T.bind(exp2(of_rest - largest, 1))
        by_list = T.bind(list_weight / self.weight_sum[i])
        for j in T.unroll(self.vectors):
            self.o[i, self.vector(j)] = self.o[i, self.vector(j)] * splat(
                by_list, self.lanes
            ) + rest.means[rest.value, self.vector(j)] * splat(rest_weight, self.lanes)
        self.weight_sum[i] = list_weight + rest_weight
        self.lse[i] = largest + T.log2(self.weight_sum[i])

    @T.inline
    def store(self, output: T.Buffer, lse: T.Buffer, query: Expr, head: Expr, i: Expr) -> None:
        """`output[query, head]`, `lse[query, head]` = query i; zeros and EMPTY_LSE if its list was
        empty."""
        if self.counts[i] > 0:
            inverse = T.bind(T.float32(1) / self.weight_sum[i])
            for j in T.unroll(self.vectors):
                output[query, head, self.vector(j)] = as_stored(
                    self.o[i, self.vector(j)] * splat(inverse, self.lanes), output.dtype
                )
            lse[query, head] = self.lse[i]
        else:
            for j in T.unroll(self.vectors):
                output[query, head, self.vector(j)] = as_stored(
                    const_f32(0.0, self.lanes), output.dtype
                )
            lse[query, head] = T.float32(EMPTY_LSE)
