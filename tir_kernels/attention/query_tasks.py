"""How prefill work is cut for the thread pool: (sequence, head, query tile), one task each.

The thread pool gives each thread one contiguous range of tasks. Under a causal mask a head's later
tiles cost more, so tiles are dealt from both ends in turn: any range then costs about the same.
"""

from __future__ import annotations

from typing import Any

from tvm.script import tirx as T

from ..spec import AttentionSpec
from .tiles import AttentionTile

Expr = Any  # a TIR expression; TVM ships no types


def query_tiles(q_indptr: T.Buffer, sequence: Expr, sizes: AttentionTile) -> Expr:
    """Query tiles of one sequence; 0 if it has no queries."""
    return T.ceildiv(q_indptr[sequence + 1] - q_indptr[sequence], sizes.queries)


@T.inline
def count_tasks(
    count: T.Buffer, q_indptr: T.Buffer, batch: Expr, spec: AttentionSpec, sizes: AttentionTile
) -> None:
    """`count[0]` = tasks of the whole batch."""
    count[0] = 0
    for b in range(batch):
        count[0] = count[0] + query_tiles(q_indptr, b, sizes) * spec.num_q_heads


@T.inline
def locate_task(
    task: Expr,
    sequence: T.Buffer,
    rest: T.Buffer,
    q_indptr: T.Buffer,
    spec: AttentionSpec,
    sizes: AttentionTile,
) -> None:
    """`sequence[0]` = the task's sequence, `rest[0]` = its number among that sequence's tasks."""
    sequence[0] = 0
    rest[0] = task
    while rest[0] >= query_tiles(q_indptr, sequence[0], sizes) * spec.num_q_heads:
        rest[0] = rest[0] - query_tiles(q_indptr, sequence[0], sizes) * spec.num_q_heads
        sequence[0] = sequence[0] + 1


def dealt_tile(turn: Expr, tiles: Expr) -> Expr:
    """The tile dealt in a turn: 0, last, 1, last - 1, ..."""
    return T.if_then_else(turn % 2 == 0, turn // 2, tiles - 1 - turn // 2)
