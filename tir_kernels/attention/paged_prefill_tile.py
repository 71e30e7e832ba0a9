"""A query tile against the pages of the KV cache: dense, for one head."""

from __future__ import annotations

from typing import Any

from tvm.script import tirx as T

from ..simd.prefetch import prefetch_row
from ..spec import AttentionSpec
from .page_table import list_page_rows, sequence_row, value_row_offset
from .prefill_tile import PrefillTile
from .tiles import AttentionTile

Expr = Any  # a TIR expression; TVM ships no types


class PagedPrefillTile(PrefillTile):
    """A `PrefillTile` that walks a page table. For one task, inside the PrimFunc::

    tile = PagedPrefillTile(spec, sizes)
    tile.run(q, rows, page_values, first_page, head, first_query, num_queries,
             first_limit, limit_step, output, lse)
    """

    def __init__(self, spec: AttentionSpec, sizes: AttentionTile) -> None:
        super().__init__(spec, sizes)
        self.spec = spec

    @T.inline
    def run(
        self,
        q: T.Buffer,
        cache_rows: T.Buffer,
        page_values: T.Buffer,
        first_page: Expr,
        head: Expr,
        first_query: Expr,
        num_queries: Expr,
        first_limit: Expr,
        limit_step: Expr,
        output: T.Buffer,
        lse: T.Buffer,
    ) -> None:
        """Queries `first_query : first_query + num_queries` of one query head, start to finish.

        `q`, `output` (tokens, Hq, D), `lse` (tokens, Hq); `cache_rows` from `page_rows`; the
        sequence's pages are `page_values[first_page]` and on. The tile's query m sees the first
        `first_limit + m * limit_step` keys of the sequence; limit_step is 0 or 1.
        """
        self.start(q, head, first_query, num_queries)
        for m in range(self.sizes.queries):
            self.limits[m] = first_limit + m * limit_step
        self.attend_pages(
            cache_rows,
            page_values,
            first_page,
            head // self.spec.group_size,
            self.limits[num_queries - 1],
            num_queries,
        )
        self.finish(output, lse, num_queries)

    @T.inline
    def attend_pages(
        self,
        cache_rows: T.Buffer,
        page_values: T.Buffer,
        first_page: Expr,
        kv_head: Expr,
        num_keys: Expr,
        num_queries: Expr,
    ) -> None:
        """Add the sequence's first `num_keys` keys (possibly none), between `start` and `finish`;
        `limits` must be set."""
        for block in range(T.ceildiv(T.max(num_keys, 0), self.sizes.key_block)):
            first_key = T.bind(block * self.sizes.key_block)
            block_keys = T.bind(T.min(self.sizes.key_block, num_keys - first_key))
            list_page_rows(
                self.rows,
                self.sizes.padded_key_block,
                page_values,
                first_page,
                kv_head,
                first_key,
                block_keys,
                self.spec,
            )
            self.ask_ahead(cache_rows, page_values, first_page, kv_head, first_key, num_keys)
            self.attend(
                cache_rows,
                cache_rows,
                value_row_offset(self.spec),
                first_key,
                block_keys,
                num_queries,
            )

    @T.inline
    def ask_ahead(
        self,
        cache_rows: T.Buffer,
        page_values: T.Buffer,
        first_page: Expr,
        kv_head: Expr,
        first_key: Expr,
        num_keys: Expr,
    ) -> None:
        """Prefetch the values of the listed block, and the keys of the one after it: hardware
        prefetchers stop where a page ends."""
        for i in range(self.sizes.key_block):
            prefetch_row(cache_rows, self.rows[i] + value_row_offset(self.spec), self.dims)
            key = T.bind(T.min(first_key + self.sizes.key_block + i, num_keys - 1))
            row = T.bind(sequence_row(page_values, first_page, kv_head, key, self.spec))
            prefetch_row(cache_rows, row, self.dims)
