"""The pages of the runtime's KV cache, seen as rows.

Pages are `(num_pages, 2, Hs, page_size, D)`, K in plane 0, V in plane 1; of the stored heads Hs the
first are the KV heads, and usually there are no others. Seen as rows of D values, a key's K row and
V row lie a constant apart, so one row table serves both.
"""

from __future__ import annotations

from typing import Any

from tvm.script import tirx as T

from ..spec import AttentionSpec

Expr = Any  # a TIR expression; TVM ships no types

KV_PLANES = 2


def page_rows(pages: T.Buffer, num_pages: Expr, spec: AttentionSpec) -> T.Buffer:
    """`pages` as rows: (num_pages * 2 * Hs * page_size, D), the same memory."""
    rows = num_pages * KV_PLANES * spec.stored_heads * spec.page_size
    return T.decl_buffer((rows, spec.head_dim), spec.dtype, data=pages.data)


def key_row(page: Expr, kv_head: Expr, slot: Expr, spec: AttentionSpec) -> Expr:
    """The row of `page_rows` that holds K of a page's slot; V is `value_row_offset` further on."""
    return (page * KV_PLANES * spec.stored_heads + kv_head) * spec.page_size + slot


def sequence_row(
    page_values: T.Buffer, first_page: Expr, kv_head: Expr, key: Expr, spec: AttentionSpec
) -> Expr:
    """The row of K of a key of the sequence whose page ids start at `page_values[first_page]`."""
    page = page_values[first_page + key // spec.page_size]
    return key_row(page, kv_head, key % spec.page_size, spec)


def value_row_offset(spec: AttentionSpec) -> int:
    """Rows between a key's K and its V."""
    return spec.stored_heads * spec.page_size


def sequence_keys(first_page: Expr, end_page: Expr, last_page_len: Expr, page_size: int) -> Expr:
    """Keys in a sequence's pages, of which the last holds `last_page_len`; 0 without pages."""
    return T.if_then_else(
        first_page < end_page, (end_page - first_page - 1) * page_size + last_page_len, 0
    )


@T.inline
def list_page_rows(
    rows: T.Buffer,
    padded_keys: int,
    page_values: T.Buffer,
    first_page: Expr,
    kv_head: Expr,
    first_key: Expr,
    num_keys: Expr,
    spec: AttentionSpec,
) -> None:
    """`rows[i]` = the row of K of key `first_key + i` of the sequence whose page ids start at
    `page_values[first_page]`; entries from `num_keys` (at least 1) to `padded_keys` repeat the
    last key."""
    for i in range(padded_keys):
        key = T.bind(first_key + T.min(i, num_keys - 1))
        rows[i] = sequence_row(page_values, first_page, kv_head, key, spec)
