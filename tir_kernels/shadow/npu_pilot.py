"""The process's own pilot: launches of a layer's lists go to a registered function if there is one.

Whoever drives an NPU registers `NPU_PILOT` with TVM's runtime; without it the compiled stand-in
serves. The function takes a launch: every list of one or several owners (heads, or GQA groups that
share lists), whose heads all have the same pair of scale buckets and the same stride. It must
compute what the stand-in does, to the bit (`pilot.requantize`, `pilot.pooling`; twin:
`reference.npu_pilot`)::

    shadowattn.npu.pilot(layer, queries, keys, heads, query_block, score_max, importance)

with U owners, G query heads of each, M queries, N keys, D dimensions::

    layer        int
    queries      (U, G, M, D) int8      those that vote, every `query_stride`-th of the sequence's;
                                        rotated, if at all, and quantized already
    keys         (U, N, D) int8         of each owner's KV head; centred as well, if at all
    heads        (U, G, 6) int32        query head, its bucket, its KV head's, multiplier and shift
                                        of the requantization, step of the pooling
    query_block  int                    so many of these share a list; the last may have fewer
    score_max    int                    requantized scores are in -score_max..score_max
    importance   (U, lists, P) int32    to be written: columns 0..N - 1; P >= N

All tensors are contiguous, in the CPU's memory, and the caller's: nothing is kept. A result is
dropped; an error fails the prefill. An owner whose heads differ in their buckets has a launch of
its own; `heads` says which head took which.
"""

from __future__ import annotations

from tvm.script import tirx as T

from ..constants import MASKED_SCORE
from ..features import CpuFeatures
from ..pilot.chunk_queries import ChunkQueries
from ..pilot.key_shadow import KeyShadow
from ..pilot.pilot_rows import PilotRow
from ..pilot.plan_table import PlanTable
from ..pilot.quantize import quantize_lanes
from ..pilot.score_rows import padded_keys
from ..registered_function import Arguments, RegisteredFunction
from ..simd.vector import Expr
from ..spec import ShadowSpec

NPU_PILOT = "shadowattn.npu.pilot"
"""The function's name in TVM's registry."""

HEAD_COLUMNS = 6
"""Of the argument `heads`."""

_ARGUMENTS, _TENSORS, _MAX_NDIM = 7, 4, 4

_UNLIKE = -1
"""Of an owner that no other may join: its heads have different buckets, or it runs dense."""


def process_pilot(
    spec: ShadowSpec, features: CpuFeatures, plan: PlanTable, npu: bool
) -> NpuPilot | NoPilot:
    """What may replace the stand-in; without `npu` nothing may, and nothing is compiled for it."""
    return NpuPilot(spec, features, plan) if npu else NoPilot()


@T.meta_class
class NoPilot:
    """The stand-in serves: of `NpuPilot`'s methods those that are called in any case."""

    importance: T.Buffer  # of `NpuPilot`; nothing reads it here

    def load(self, layer: Expr) -> None: ...

    def plan_launches(self, queries: ChunkQueries, keys: KeyShadow) -> None: ...

    def make_room(self, items: Expr, columns: Expr) -> None: ...

    def is_absent(self) -> bool:
        return True

    def has_delivered(self) -> bool:
        return True

    def run(self, *arguments: Expr) -> None:
        raise AssertionError("nothing but the stand-in runs")

    def close(self) -> None: ...


@T.meta_class
class NpuPilot:
    """Made inside the PrimFunc, outside parallel loops: `load`, `plan_launches` and `make_room` for
    each sequence, `run` from one task, `close` at the end.

    Attributes
    ----------
    joins : (list owners,) int32, by position: 1 where the plan launches an owner together with the
        one before.
    sizes : (list owners,) int32, by position: owners of the launch that begins there; 0 = none.
    importance : (items, padded keys) int32, what the function writes.
    """

    def __init__(self, spec: ShadowSpec, features: CpuFeatures, plan: PlanTable) -> None:
        self.spec = spec
        self.features = features
        self.plan = plan
        self.owners = spec.num_list_owners
        self.owner_heads = spec.attention.num_q_heads // self.owners
        self.joins = T.alloc_buffer((self.owners,), "int32")
        self.sizes = T.alloc_buffer((self.owners,), "int32")
        self.pairs = T.alloc_buffer((self.owners,), "int32")
        self.owner_strides = T.alloc_buffer((self.owners,), "int32")
        self.start = T.alloc_buffer((1,), "int32")
        self.function = RegisteredFunction(NPU_PILOT)

    def load(self, layer: Expr) -> None:
        """Look for the function, and fill `joins`; plain Python, run while the kernel is parsed."""
        self.function.find()
        for position in range(self.owners):
            T.buffer_store(self.joins, T.int32(0), [position])
        for index in range(self.spec.num_layers):
            followers = self._followers(index)
            if followers:
                with T.If(layer == index), T.Then():
                    for position in followers:
                        T.buffer_store(self.joins, T.int32(1), [position])

    def _followers(self, layer: int) -> list[int]:
        """Positions of all but the first of every launch."""
        launches = self.spec.owner_launches(layer)
        first = [place == 0 for launch in launches for place in range(len(launch))]
        return [position for position, begins in enumerate(first) if not begins]

    def is_absent(self) -> Expr:
        """Whether the stand-in serves."""
        return T.Not(self.function.is_found())

    def has_delivered(self) -> Expr:
        """Whether importances that `run` is done with are worth reading."""
        return T.Not(self.function.has_failed())

    def close(self) -> None:
        """Let the function go, and raise what it raised."""
        self.function.close()

    def make_room(self, items: Expr, columns: Expr) -> None:
        """Allocate `importance`; where the stand-in serves, next to nothing."""
        self.importance = T.alloc_buffer(
            (T.if_then_else(self.is_absent(), 1, items), columns), "int32"
        )

    @T.inline
    def plan_launches(self, queries: ChunkQueries, keys: KeyShadow) -> None:
        """`sizes`, for a sequence's measured queries and keys."""
        for position in range(self.owners):
            head = T.bind(self.plan.order[position] * self.owner_heads)
            self.pairs[position] = self.pair(queries, keys, head)
            self.owner_strides[position] = self.plan.query_stride(head)
            if self.plan.keep_count(head, keys.num_keys) == keys.num_keys:
                self.pairs[position] = _UNLIKE
            for g in range(self.owner_heads):
                if self.pair(queries, keys, head + g) != self.pairs[position]:
                    self.pairs[position] = _UNLIKE
            self.sizes[position] = 1
            if position == 0:
                self.start[0] = 0
            else:
                if T.And(
                    self.joins[position] == 1,
                    T.And(
                        self.pairs[position] != _UNLIKE,
                        T.And(
                            self.pairs[position] == self.pairs[position - 1],
                            self.owner_strides[position] == self.owner_strides[position - 1],
                        ),
                    ),
                ):
                    self.sizes[position] = 0
                    self.sizes[self.start[0]] = self.sizes[self.start[0]] + 1
                else:
                    self.start[0] = position

    def pair(self, queries: ChunkQueries, keys: KeyShadow, head: Expr) -> Expr:
        """The plan's column of a head's buckets."""
        return self.plan.pair(
            queries.buckets[head], keys.buckets[head // self.spec.attention.group_size]
        )

    @T.inline
    def run(
        self,
        q_rows: T.Buffer,
        queries: ChunkQueries,
        keys: KeyShadow,
        layer: Expr,
        first_query: Expr,
        num_queries: Expr,
        item: Expr,
    ) -> None:
        """The launch whose first list is `item`, if there is one: `importance` of all its lists.

        q_rows (tokens * Hq, D).
        """
        lists = T.bind(T.ceildiv(num_queries, self.spec.pilot.query_block))
        position = T.bind(item // lists)
        size = T.bind(T.if_then_else(item % lists == 0, self.sizes[position], 0))
        if T.And(size > 0, T.Not(self.function.has_failed())):
            dims = T.meta_var(self.spec.attention.head_dim)
            columns = T.bind(padded_keys(keys, self.features))
            stride = T.bind(self.owner_strides[position])
            voters = T.bind(T.ceildiv(num_queries, stride))
            q8 = T.alloc_buffer((size * self.owner_heads * voters, dims), "int8")
            k8 = T.alloc_buffer((size * keys.num_keys, dims), "int8")
            heads = T.alloc_buffer((size * self.owner_heads, HEAD_COLUMNS), "int32")
            for i in range(size):
                first = T.bind(self.plan.order[position + i] * self.owner_heads)
                self.unpack(keys, first // self.spec.attention.group_size, k8, i)
                for g in range(self.owner_heads):
                    row = T.bind(i * self.owner_heads + g)
                    self.describe(queries, keys, first + g, heads, row)
                    self.quantize(q_rows, queries, first + g, first_query, stride, voters, q8, row)
            self.launch(
                layer,
                (q8, k8, heads),
                (size, voters, keys.num_keys),
                self.spec.pilot.query_block // stride,
                self.importance,
                item,
                lists,
                columns,
            )

    @T.inline
    def launch(
        self,
        layer: Expr,
        inputs: tuple[T.Buffer, T.Buffer, T.Buffer],
        shape: tuple[Expr, Expr, Expr],
        list_queries: Expr,
        importance: T.Buffer,
        item: Expr,
        lists: Expr,
        columns: Expr,
    ) -> None:
        """The call, for the owners whose lists begin with `item`, so many `lists` of each.

        inputs : queries, keys and heads, as the function takes them. shape : owners, queries of
        each that vote, and keys. list_queries : of these queries, so many share a list.
        """
        q8, k8, heads = T.meta_var(inputs)
        size, num_queries, num_keys = T.meta_var(shape)
        owner_heads = T.meta_var(T.int32(self.owner_heads))
        dims = T.meta_var(T.int32(self.spec.attention.head_dim))
        arguments = Arguments(_ARGUMENTS, _TENSORS, _MAX_NDIM)
        arguments.add_integer(layer)
        arguments.add_tensor(q8.data, "int8", (size, owner_heads, num_queries, dims))
        arguments.add_tensor(k8.data, "int8", (size, num_keys, dims))
        arguments.add_tensor(heads.data, "int32", (size, owner_heads, T.int32(HEAD_COLUMNS)))
        arguments.add_integer(list_queries)
        arguments.add_integer(T.int32(self.spec.pilot.score_max))
        arguments.add_tensor(T.address_of(importance[item, 0]), "int32", (size, lists, columns))
        self.function.call(arguments)
        for i in range(size * lists):
            for pad in range(columns - num_keys):
                importance[item + i, num_keys + pad] = T.int32(MASKED_SCORE)

    @T.inline
    def describe(
        self, queries: ChunkQueries, keys: KeyShadow, head: Expr, heads: T.Buffer, row: Expr
    ) -> None:
        """`heads[row]` = what the pilot of a head takes from the plan."""
        pair = T.bind(self.pair(queries, keys, head))
        heads[row, 0] = head
        heads[row, 1] = queries.buckets[head]
        heads[row, 2] = keys.buckets[head // self.spec.attention.group_size]
        heads[row, 3] = self.plan.multipliers[head, pair]
        heads[row, 4] = self.plan.shifts[head, pair]
        heads[row, 5] = self.plan.steps[head, pair]

    @T.inline
    def quantize(
        self,
        q_rows: T.Buffer,
        queries: ChunkQueries,
        head: Expr,
        first_query: Expr,
        stride: Expr,
        voters: Expr,
        q8: T.Buffer,
        row: Expr,
    ) -> None:
        """A head's queries that vote, `voters` of them, every `stride`-th from `first_query` on,
        to the `row`-th block of so many rows of q8."""
        view = PilotRow(
            self.spec.attention.head_dim,
            self.features.lanes,
            centered=False,  # a mean taken from queries would change the order
            rotated=self.spec.pilot.hadamard_rotation,
        )
        scale = T.bind(self.plan.q_scales[head, queries.buckets[head]])
        for i in range(voters):
            source = T.bind((first_query + i * stride) * self.spec.attention.num_q_heads + head)
            if view.changed:
                view.load(q_rows, source, q_rows, 0)
                self.quantize_stored(view.row, 0, scale, q8, row * voters + i)
            else:
                self.quantize_stored(q_rows, source, scale, q8, row * voters + i)

    @T.inline
    def quantize_stored(
        self, rows: T.Buffer, source: Expr, scale: Expr, q8: T.Buffer, row: Expr
    ) -> None:
        """`q8[row]` = `rows[source]`, quantized."""
        lanes = T.meta_var(self.features.lanes)
        for j in T.unroll(self.spec.attention.head_dim // lanes):
            q8[row, T.ramp(j * lanes, 1, lanes)] = T.Cast(
                f"int8x{lanes}",
                quantize_lanes(
                    rows[source, T.ramp(j * lanes, 1, lanes)],
                    scale,
                    lanes,
                    self.spec.pilot.quant_max,
                ),
            )

    @T.inline
    def unpack(self, keys: KeyShadow, kv_head: Expr, k8: T.Buffer, row: Expr) -> None:
        """A KV head's keys, in the order of their numbers, to the `row`-th block of k8."""
        dot = T.meta_var(keys.dot)
        for key in range(keys.num_keys):
            block = T.bind(kv_head * keys.num_blocks + key // dot.lanes)
            for step in range(self.spec.attention.head_dim // dot.group):
                for e in T.vectorized(dot.group):
                    k8[row * keys.num_keys + key, step * dot.group + e] = T.Cast(
                        "int8",
                        T.Cast("int32", keys.packed[block, step, key % dot.lanes * dot.group + e])
                        - dot.key_offset,
                    )
