"""Exact attention of a sequence's queries over lists that the host selected: one owner's launch."""

from __future__ import annotations

from dataclasses import dataclass

from tvm.script import tirx as T

from ..attention.page_table import key_row, value_row_offset
from ..head_rest import HeadRest
from ..spec import ShadowSpec
from .block_group import BlockGroup, block_sizes
from .vector import Expr


@dataclass(frozen=True)
class Rows:
    """The slot's tensors as rows on the device; see `page_rows`.

    Attributes
    ----------
    q, output : (tokens * Hq, D). lse : (tokens * Hq,). cache : K and V. page_values : ids.
    """

    q: T.Buffer
    output: T.Buffer
    lse: T.Buffer
    cache: T.Buffer
    page_values: T.Buffer


@T.inline
def attend_lists(
    spec: ShadowSpec,
    rows: Rows,
    lists: T.Buffer,
    keep: Expr,
    owner: Expr,
    first_query: Expr,
    num_queries: Expr,
    first_page: Expr,
    rest: HeadRest | None,
) -> None:
    """`rows.output` and `rows.lse` of the owner's heads; list i is `lists[i * keep : ][: keep]`,
    and the rest of the past is `rest`.
    All numbers are the host's."""
    geometry = T.meta_var(spec.attention)
    hq, slots = T.meta_var(geometry.num_q_heads), T.meta_var(geometry.page_size)
    unit = T.meta_var(hq // spec.num_list_owners)
    sizes = T.meta_var(block_sizes(geometry, spec.list_rows))
    query_block = T.meta_var(spec.pilot.query_block)
    for block_index in T.thread_binding(T.ceildiv(num_queries, query_block), thread="blockIdx.x"):
        for tile in T.thread_binding(-(-spec.list_rows // sizes.rows), thread="blockIdx.y"):
            for row in T.thread_binding(sizes.rows, thread="threadIdx.y"):
                for column in T.thread_binding(sizes.columns, thread="threadIdx.x"):
                    first_row = T.meta_var(tile * sizes.rows)
                    left = T.meta_var(
                        T.min(query_block, num_queries - block_index * query_block) * unit
                    )
                    num_rows = T.bind(T.max(T.min(sizes.rows, left - first_row), 0))
                    count = T.bind(T.if_then_else(num_rows > 0, keep, 0))
                    first = T.bind((first_query + block_index * query_block) * hq + owner * unit)
                    block = BlockGroup(geometry, sizes, row, column)
                    block.start(
                        rows.q,
                        num_rows,
                        lambda i: first + (first_row + i) // unit * hq + (first_row + i) % unit,
                    )
                    if rest is not None:
                        block.begin_with(rest)
                    block.limit[0] = count
                    block.attend(
                        rows.cache,
                        rows.cache,
                        value_row_offset(geometry),
                        count,
                        lambda i: key_row(
                            rows.page_values[first_page + lists[block_index * keep + i] // slots],
                            owner * unit // geometry.group_size,
                            lists[block_index * keep + i] % slots,
                            geometry,
                        ),
                    )
                    if row < num_rows:
                        block.finish(
                            rows.output,
                            rows.lse,
                            first + (first_row + row) // unit * hq + (first_row + row) % unit,
                        )
