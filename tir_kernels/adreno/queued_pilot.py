"""The process's own pilot beside a GPU that quantizes: it gets what the GPU left, from copies."""

from __future__ import annotations

from dataclasses import dataclass

from tvm.script import tirx as T

from ..shadow.npu_pilot import HEAD_COLUMNS, NpuPilot
from .vector import Expr

_COPIED = 16
"""Bytes at a time: every head dim is a multiple."""


@dataclass(frozen=True)
class HostChunk:
    """One sequence as the host knows it, in the CPU's memory.

    Attributes
    ----------
    packed_queries : (tokens * Hq, D) int8, of all sequences. packed_keys : (Hkv * stride, D) int8,
        likewise; this one's begin at query `first_query` and, in every KV head, key `first_key`.
    query_buckets : (Hq,) int32. key_buckets : (Hkv,) int32. Of this sequence.
    """

    packed_queries: T.Buffer
    packed_keys: T.Buffer
    query_buckets: T.Buffer
    key_buckets: T.Buffer
    stride: Expr
    first_query: Expr
    num_queries: Expr
    first_key: Expr
    num_keys: Expr


@dataclass(frozen=True)
class Side:
    """Queries or keys, as far as planning launches asks for them."""

    buckets: T.Buffer
    num_keys: Expr


class QueuedPilot(NpuPilot):
    """Made, as `NpuPilot` is, outside parallel loops; an item is an owner of lists, by position."""

    @T.inline
    def plan_chunk(self, chunk: HostChunk) -> None:
        """`sizes`, for a sequence."""
        self.plan_launches(
            Side(chunk.query_buckets, chunk.num_keys), Side(chunk.key_buckets, chunk.num_keys)
        )

    @T.inline
    def run_chunk(
        self, chunk: HostChunk, layer: Expr, position: Expr, importance: T.Buffer, columns: Expr
    ) -> None:
        """The launch that begins at `position`, if one does: importance of all lists of its owners.

        importance (owners * lists, columns), by position, then list.
        """
        size = T.bind(self.sizes[position])
        if T.And(size > 0, T.Not(self.function.has_failed())):
            geometry = T.meta_var(self.spec.attention)
            hq = T.meta_var(geometry.num_q_heads)
            stride = T.bind(self.owner_strides[position])
            voters = T.bind(T.ceildiv(chunk.num_queries, stride))
            q8 = T.alloc_buffer((size * self.owner_heads * voters, geometry.head_dim), "int8")
            k8 = T.alloc_buffer((size * chunk.num_keys, geometry.head_dim), "int8")
            heads = T.alloc_buffer((size * self.owner_heads, HEAD_COLUMNS), "int32")
            for i in range(size):
                first = T.bind(self.plan.order[position + i] * self.owner_heads)
                kv_head = T.meta_var(first // geometry.group_size)
                for key in range(chunk.num_keys):
                    self.copy(
                        chunk.packed_keys,
                        kv_head * chunk.stride + chunk.first_key + key,
                        k8,
                        i * chunk.num_keys + key,
                    )
                for g in range(self.owner_heads):
                    row = T.bind(i * self.owner_heads + g)
                    self.describe(
                        Side(chunk.query_buckets, chunk.num_keys),
                        Side(chunk.key_buckets, chunk.num_keys),
                        first + g,
                        heads,
                        row,
                    )
                    for voter in range(voters):
                        self.copy(
                            chunk.packed_queries,
                            (chunk.first_query + voter * stride) * hq + first + g,
                            q8,
                            row * voters + voter,
                        )
            lists = T.bind(T.ceildiv(chunk.num_queries, self.spec.pilot.query_block))
            self.launch(
                layer,
                (q8, k8, heads),
                (size, voters, chunk.num_keys),
                self.spec.pilot.query_block // stride,
                importance,
                position * lists,
                lists,
                columns,
            )

    @T.inline
    def copy(self, source: T.Buffer, row: Expr, target: T.Buffer, target_row: Expr) -> None:
        """`target[target_row]` = `source[row]`."""
        for j in T.unroll(self.spec.attention.head_dim // _COPIED):
            target[target_row, T.ramp(j * _COPIED, 1, _COPIED)] = source[
                row, T.ramp(j * _COPIED, 1, _COPIED)
            ]
