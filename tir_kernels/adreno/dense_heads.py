"""The heads of a shadowAttn layer that keep everything: one launch for all of them."""

from __future__ import annotations

from tvm.script import tirx as T

from ..attention.page_table import key_row, sequence_keys, value_row_offset
from ..pilot.plan_table import PlanTable
from ..spec import ShadowSpec
from .block_group import BlockGroup, block_sizes
from .past import Sequences
from .query_tile import QueryTile, max_tiles
from .vector import Expr


@T.inline
def dense_heads(
    spec: ShadowSpec,
    plan: PlanTable,
    sequences: Sequences,
    q_rows: T.Buffer,
    cache_rows: T.Buffer,
    out_rows: T.Buffer,
    lse_rows: T.Buffer,
    tokens: Expr,
    causal: Expr,
) -> None:
    """`out_rows` and `lse_rows` of the heads that keep all keys of a sequence; under a causal mask
    those of all heads. `plan` is in the device's memory."""
    geometry = T.meta_var(spec.attention)
    sizes = T.meta_var(block_sizes(geometry))
    unit = T.meta_var(geometry.num_q_heads // spec.num_list_owners)
    hq = T.meta_var(geometry.num_q_heads)
    slots = T.meta_var(geometry.page_size)
    for bx in T.thread_binding(
        max_tiles(tokens, sequences.batch, unit, sizes.rows), thread="blockIdx.x"
    ):
        for owner in T.thread_binding(hq // unit, thread="blockIdx.y"):
            for row in T.thread_binding(sizes.rows, thread="threadIdx.y"):
                for column in T.thread_binding(sizes.columns, thread="threadIdx.x"):
                    tile = QueryTile(unit, sizes.rows)
                    tile.locate(bx, sequences.q_indptr, sequences.batch)
                    first_page = T.bind(sequences.page_indptr[tile.sequence])
                    keys = T.bind(
                        sequence_keys(
                            first_page,
                            sequences.page_indptr[tile.sequence + 1],
                            sequences.length_info[tile.sequence],
                            slots,
                        )
                    )
                    is_dense = T.bind(T.Or(causal > 0, plan.keep_count(owner * unit, keys) >= keys))
                    num_rows = T.bind(T.if_then_else(is_dense, tile.num_rows, 0))
                    before = T.bind(T.if_then_else(causal > 0, keys - tile.num_queries + 1, keys))
                    step = T.bind(T.if_then_else(causal > 0, 1, 0))
                    last = T.meta_var((tile.first + tile.num_rows - 1) // unit)
                    block = BlockGroup(geometry, sizes, row, column)
                    block.start(q_rows, num_rows, lambda i: tile.query_row(i, owner * unit, hq))
                    block.limit[0] = before + step * ((tile.first + row) // unit)
                    block.attend(
                        cache_rows,
                        cache_rows,
                        value_row_offset(geometry),
                        T.if_then_else(num_rows > 0, T.max(before + step * last, 0), 0),
                        lambda i: key_row(
                            sequences.page_values[first_page + i // slots],
                            owner * unit // geometry.group_size,
                            i % slots,
                            geometry,
                        ),
                    )
                    if row < num_rows:
                        block.finish(out_rows, lse_rows, tile.query_row(row, owner * unit, hq))
