"""What a launch knows of a turn's queries: their sequence, its keys, and how many a head keeps."""

from __future__ import annotations

from dataclasses import dataclass

from tvm.script import tirx as T

from ..attention.page_table import key_row, sequence_keys
from ..head_rest import HeadRest, rest_of_head
from .query_tile import QueryTile
from .shadow_scratch import ShadowScratch
from .vector import Expr


@dataclass(frozen=True)
class Sequences:
    """The batch, as the slot's arguments describe it; int32 buffers in global memory."""

    batch: Expr
    q_indptr: T.Buffer
    page_indptr: T.Buffer
    page_values: T.Buffer
    length_info: T.Buffer

    def num_keys(self, sequence: Expr, page_size: int) -> Expr:
        """The keys that a sequence has in its pages."""
        return sequence_keys(
            self.page_indptr[sequence],
            self.page_indptr[sequence + 1],
            self.length_info[sequence],
            page_size,
        )


@T.meta_class
class Past:
    """One head's view of a turn: up to `scratch.queries` queries of one sequence. Made inside a
    kernel.

    Attributes, after `locate`
    ----------
    tile : the queries. keys : of the sequence. keep : what the head keeps of them. ranked : `keys`
        where it keeps fewer, else 0: nothing is to be selected, or there is no such turn.
    num_rows : queries whose keys are selected; 0 if `ranked` is.
    """

    def __init__(self, scratch: ShadowScratch, sequences: Sequences) -> None:
        self.scratch = scratch
        self.sequences = sequences
        self.geometry = scratch.spec.attention
        self.tile = QueryTile(1, scratch.queries)
        self.state = T.alloc_buffer((4,), "int32", scope="local")

    @property
    def keys(self) -> Expr:
        return self.state[0]

    @property
    def keep(self) -> Expr:
        return self.state[1]

    @property
    def ranked(self) -> Expr:
        return self.state[2]

    @property
    def num_rows(self) -> Expr:
        return self.state[3]

    @property
    def first_page(self) -> Expr:
        """Where the sequence's page ids start."""
        return self.sequences.page_indptr[self.tile.sequence]

    @T.inline
    def locate(self, turn: Expr, head: Expr) -> None:
        self.tile.locate(turn, self.sequences.q_indptr, self.sequences.batch)
        self.state[0] = self.sequences.num_keys(self.tile.sequence, self.geometry.page_size)
        self.state[1] = self.scratch.plan.keep_count(head, self.keys)
        self.state[2] = T.if_then_else(
            T.And(self.keep < self.keys, self.tile.num_rows > 0), self.keys, 0
        )
        self.state[3] = T.if_then_else(self.ranked > 0, self.tile.num_rows, 0)

    def cache_row(self, kv_head: Expr, key: Expr) -> Expr:
        """The row of `page_rows` that holds K of one of the sequence's keys."""
        slots = self.geometry.page_size
        page = self.sequences.page_values[self.first_page + key // slots]
        return key_row(page, kv_head, key % slots, self.geometry)

    def rest(self, kv_head: Expr) -> HeadRest | None:
        """What the head's lists leave out; None where the plan drops it."""
        key = self.tile.sequence * self.geometry.num_kv_heads + kv_head
        scratch = self.scratch
        return rest_of_head(scratch.spec, scratch.rest_means, key, self.keys, self.keep)

    def bucket_pair(self, head: Expr) -> Expr:
        """The column of the plan's tables for the scales that a head's queries and keys took."""
        geometry, scratch = self.geometry, self.scratch
        kv_head = head // geometry.group_size
        return scratch.plan.pair(
            scratch.query_buckets[self.tile.sequence * geometry.num_q_heads + head],
            scratch.key_buckets[self.tile.sequence * geometry.num_kv_heads + kv_head],
        )
