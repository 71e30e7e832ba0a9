"""Where the INT8 shadow of K lies in the pages of the KV cache.

A page's plane is (heads, page_size, D) float32. Beyond the KV heads it gets extra head rows; a
token's slot in one of those has room for BYTES_PER_FLOAT keys of D bytes. KV heads fill the K
plane's row, then the V plane's, then the next row's:

    KV head h: extra row h // 8, plane h % 8 // 4, bytes (h % 4) * D ... of the slot

So a token's shadow lies in its own slot, and whatever moves slots carries it along.
"""

from __future__ import annotations

from dataclasses import replace

from ..attention.page_table import KV_PLANES
from ..simd.vector import Expr
from ..spec import AttentionSpec, ShadowSpec

BYTES_PER_FLOAT = 4

KEYS_PER_ROW = KV_PLANES * BYTES_PER_FLOAT
"""INT8 keys that one extra head row holds for a token, both planes together."""


def shadow_rows(num_kv_heads: int) -> int:
    """Extra head rows that the shadow of so many KV heads takes."""
    return -(-num_kv_heads // KEYS_PER_ROW)


def with_key_shadow(spec: ShadowSpec) -> ShadowSpec:
    """`spec` for a cache whose pages have room for the shadow."""
    rows = shadow_rows(spec.attention.num_kv_heads)
    return replace(spec, attention=replace(spec.attention, shadow_rows=rows))


def shadow_row(page: Expr, kv_head: Expr, slot: Expr, spec: AttentionSpec) -> Expr:
    """The row of `page_rows` that has a KV head's shadow of a page's slot."""
    plane = kv_head % KEYS_PER_ROW // BYTES_PER_FLOAT
    head = spec.num_kv_heads + kv_head // KEYS_PER_ROW
    return ((page * KV_PLANES + plane) * spec.stored_heads + head) * spec.page_size + slot


def shadow_column(kv_head: Expr, spec: AttentionSpec) -> Expr:
    """The first of the D / 4 float32 elements of `shadow_row` that are a KV head's INT8 key."""
    return kv_head % BYTES_PER_FLOAT * (spec.head_dim // BYTES_PER_FLOAT)
