"""Where the INT8 shadow of K lies in the pages of the KV cache.

A page's plane is (heads, page_size, D), of elements of b bytes. Beyond the KV heads it gets extra
head rows; a token's slot in one of those has room for b keys of D bytes. KV heads fill the K
plane's row, then the V plane's, then the next row's:

    KV head h: extra row h // 2b, plane h % 2b // b, bytes (h % b) * D ... of the slot

So a token's shadow lies in its own slot, and whatever moves slots carries it along.

Where the last row isn't full, the D bytes after the last KV head's hold a float32 for each KV head:
the largest |element| of its key as the pilot sees it, from which prefill chooses a scale. D bytes
are enough for D / 4 KV heads; with more of them, or with full rows, there is none.
"""

from __future__ import annotations

from dataclasses import replace

from ..attention.page_table import KV_PLANES, key_row
from ..simd.vector import Expr
from ..spec import AttentionSpec, ShadowSpec

_FLOAT_BYTES = 4
"""Of a key's maximum, whatever the pages are of."""


def keys_per_row(spec: AttentionSpec) -> int:
    """INT8 keys that one extra head row holds for a token, both planes together."""
    return KV_PLANES * spec.element_bytes


def shadow_rows(spec: AttentionSpec) -> int:
    """Extra head rows that the shadow of the KV heads takes."""
    return -(-spec.num_kv_heads // keys_per_row(spec))


def with_key_shadow(spec: ShadowSpec) -> ShadowSpec:
    """`spec` for a cache whose pages have room for the shadow."""
    geometry = spec.attention
    return replace(spec, attention=replace(geometry, shadow_rows=shadow_rows(geometry)))


def has_key_maxima(spec: AttentionSpec) -> bool:
    """Whether the extra rows have room for the keys' maxima."""
    has_room = spec.num_kv_heads % keys_per_row(spec) > 0
    return has_room and _FLOAT_BYTES * spec.num_kv_heads <= spec.head_dim


def shadow_row_offset(kv_head: Expr, spec: AttentionSpec) -> Expr:
    """Rows between a slot's K of KV head 0 and its shadow of a KV head. (One KV head further than
    the last is where the maxima are.)"""
    plane = kv_head % keys_per_row(spec) // spec.element_bytes
    head = spec.num_kv_heads + kv_head // keys_per_row(spec)
    return (plane * spec.stored_heads + head) * spec.page_size


def shadow_row(page: Expr, kv_head: Expr, slot: Expr, spec: AttentionSpec) -> Expr:
    """The row of `page_rows` that has a KV head's shadow of a page's slot."""
    return key_row(page, 0, slot, spec) + shadow_row_offset(kv_head, spec)


def shadow_column(kv_head: Expr, spec: AttentionSpec) -> Expr:
    """The first of the D / b elements of `shadow_row` that are a KV head's INT8 key."""
    return kv_head % spec.element_bytes * (spec.head_dim // spec.element_bytes)


def maximum_elements(spec: AttentionSpec) -> int:
    """Elements of the pages that a key's maximum takes."""
    return _FLOAT_BYTES // spec.element_bytes


def maximum_column(kv_head: Expr, spec: AttentionSpec) -> Expr:
    """The first of the `maximum_elements` that are the maximum of a KV head's key, in the row of
    the `num_kv_heads`-th head's shadow."""
    return shadow_column(spec.num_kv_heads, spec) + kv_head * maximum_elements(spec)
