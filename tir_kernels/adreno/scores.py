"""The pilot on Adreno: INT8 scores of a pass of queries against all their keys, and their votes.

A stand-in for the NPU: integers as on every target, a key to each work-item. INT8 products are made
of vectors of four; extensions for dot products are not asked for.

Contents
- `score_rows`: scores, requantized if the plan says so.
- `weigh_row`, `vote`: pooling, over rows that share a list.
"""

from __future__ import annotations

from tvm.script import tirx as T

from ..pilot.pooling import DISTANCES
from ..pilot.requantize import half_unit, requantize_lanes
from ..pilot.vote_weights import WeightTables, row_inverse
from .limits import VECTOR
from .past import Past
from .shadow_scratch import ShadowScratch
from .vector import Expr, barrier, part

ITEMS = 64
"""Work-items of a group: so many keys."""


@T.inline
def score_rows(
    scratch: ShadowScratch,
    past: Past,
    head: Expr,
    key: Expr,
) -> None:
    """`scores` of the turn's rows that vote and one key, in the kernel of `key`'s work-item."""
    spec = T.meta_var(scratch.spec)
    geometry, pilot = T.meta_var(spec.attention), T.meta_var(spec.pilot)
    dot = T.alloc_buffer((VECTOR,), "int32", scope="local")
    score = T.alloc_buffer((1,), "int32", scope="local")
    kv_head = T.meta_var(head // geometry.group_size)
    if key < past.ranked:
        pair = T.bind(past.bucket_pair(head))
        first_key = T.bind(past.first_page * geometry.page_size)
        stride = T.bind(scratch.plan.query_stride(head))
        for voter in range(T.ceildiv(past.num_rows, stride)):
            row = T.bind(voter * stride)
            query = T.meta_var(past.tile.query_row(row, head, geometry.num_q_heads))
            dot[part(0)] = T.broadcast(T.int32(0), VECTOR)
            for c in range(geometry.head_dim // VECTOR):
                dot[part(0)] = dot[part(0)] + T.Cast(
                    f"int32x{VECTOR}", scratch.packed_queries[query, part(c)]
                ) * T.Cast(
                    f"int32x{VECTOR}",
                    scratch.packed_keys[kv_head * scratch.keys + first_key + key, part(c)],
                )
            score[0] = (dot[0] + dot[1]) + (dot[2] + dot[3])
            if pilot.requantize:
                shift = T.bind(scratch.plan.shifts[head, pair])
                score[0] = requantize_lanes(
                    score[0] + half_unit(shift),
                    scratch.plan.multipliers[head, pair],
                    shift,
                    pilot.score_max,
                    1,
                )
            scratch.scores[head * scratch.queries + row, key] = T.Cast(
                scratch.scores.dtype, score[0]
            )


@T.inline
def weigh_row(scratch: ShadowScratch, past: Past, head: Expr, row: Expr, item: Expr) -> None:
    """`row_maxima`, `row_inverses` and `row_shifts` of one row, if it votes, by a group of
    `ITEMS`."""
    at = T.meta_var(head * scratch.queries + row)
    largest = T.alloc_buffer((1,), "int32", scope="local")
    total = T.alloc_buffer((1,), "int64", scope="local")
    maxima = T.alloc_buffer((ITEMS,), "int32", scope="shared")
    totals = T.alloc_buffer((ITEMS,), "int64", scope="shared")
    tables = WeightTables("local")
    votes = T.And(row < past.num_rows, row % scratch.plan.query_stride(head) == 0)
    n = T.bind(T.if_then_else(votes, past.ranked, 0))
    tables.start()
    tables.set_step(scratch.plan.steps[head, past.bucket_pair(head)])
    largest[0] = -scratch.spec.pilot.score_max
    for step in range(T.ceildiv(n, ITEMS)):
        if step * ITEMS + item < n:
            largest[0] = T.max(largest[0], T.Cast("int32", scratch.scores[at, step * ITEMS + item]))
    maxima[item] = largest[0]
    barrier()
    for i in range(ITEMS):
        largest[0] = T.max(largest[0], maxima[i])
    total[0] = T.int64(0)
    for step in range(T.ceildiv(n, ITEMS)):
        if step * ITEMS + item < n:
            total[0] = total[0] + T.Cast(
                "int64",
                tables.weight(
                    T.min(
                        largest[0] - T.Cast("int32", scratch.scores[at, step * ITEMS + item]),
                        DISTANCES - 1,
                    )
                ),
            )
    totals[item] = total[0]
    barrier()
    if T.And(item == 0, n > 0):
        total[0] = T.int64(0)
        for i in range(ITEMS):
            total[0] = total[0] + totals[i]
        zeros = T.bind(T.Cast("int32", T.call_pure_extern("int64", "clz", total[0])))
        inverse, shift = T.meta_var(row_inverse(total[0], zeros))
        scratch.row_maxima[at] = largest[0]
        scratch.row_inverses[at] = inverse
        scratch.row_shifts[at] = shift


@T.inline
def vote(
    scratch: ShadowScratch,
    past: Past,
    owner: Expr,
    block: Expr,
    key: Expr,
) -> None:
    """`votes` of the rows of one list for one key, in the kernel of `key`'s work-item."""
    spec = T.meta_var(scratch.spec)
    query_block = T.meta_var(spec.pilot.query_block)
    votes = T.alloc_buffer((1,), "int32", scope="local")
    tables = WeightTables("local")
    tables.start()
    if key < past.ranked:
        votes[0] = 0
        for h in range(scratch.unit):
            head = T.bind(owner * scratch.unit + h)
            tables.set_step(scratch.plan.steps[head, past.bucket_pair(head)])
            stride = T.bind(scratch.plan.query_stride(head))
            block_rows = T.min(query_block, past.num_rows - block * query_block)
            for i in range(T.ceildiv(block_rows, stride)):
                at = T.bind(head * scratch.queries + block * query_block + i * stride)
                weight = T.bind(
                    tables.weight(
                        T.min(
                            scratch.row_maxima[at] - T.Cast("int32", scratch.scores[at, key]),
                            DISTANCES - 1,
                        )
                    )
                )
                votes[0] = votes[0] + T.shift_right(
                    weight * scratch.row_inverses[at], scratch.row_shifts[at]
                )
        scratch.votes[owner * scratch.blocks + block, key] = votes[0]
