"""Memory that grows with the context: the KV cache, and what shadowAttn needs beside it."""

from __future__ import annotations

from math import lcm

from tir_kernels.attention.page_table import KV_PLANES
from tir_kernels.attention.tiles import attention_tile
from tir_kernels.features import CpuFeatures
from tir_kernels.pilot.int8_dot import int8_dot_method
from tir_kernels.pilot.key_shadow import SEGMENT_BLOCKS
from tir_kernels.pilot.top_k import index_slack, row_multiple
from tir_kernels.spec import AttentionSpec, ShadowSpec, keep_count

_INT32_BYTES = 4
_FLOAT32_BYTES = 4
_INT16_BYTES = 2
_ROW_BYTES = {"int32": _INT32_BYTES, "int8": 1}


def kv_cache_bytes(spec: AttentionSpec, num_layers: int, num_tokens: int) -> int:
    """The pages that hold so many tokens' keys and values, in all layers."""
    pages = -(-num_tokens // spec.page_size)
    page_elements = KV_PLANES * spec.num_kv_heads * spec.page_size * spec.head_dim
    return num_layers * pages * page_elements * spec.element_bytes


def pilot_workspace_bytes(
    spec: ShadowSpec, features: CpuFeatures, *, num_past: int, num_queries: int, threads: int
) -> int:
    """What one call of the paged-prefill slot allocates in proportion to the past: the keys' INT8
    shadow and shared lists, which all threads have in common, and scores or votes, importances and
    lists that nobody shares of every thread at its largest. Layers follow each other in the same
    memory. 0 if no head of any layer is sparse. (Importances that a registered pilot writes come on
    top.)
    """
    keeps = [keep_count(num_past, h.keep_ratio_q16, spec.k_min) for row in spec.heads for h in row]
    sparse = [keep for keep in keeps if keep < num_past]
    if not sparse:
        return 0
    geometry, dot = spec.attention, int8_dot_method(features)
    packed_keys = _padded(num_past, dot.register_keys)
    row_keys = _padded(num_past, lcm(dot.register_keys, row_multiple(features)))
    segments = -(-(packed_keys // dot.lanes) // SEGMENT_BLOCKS)
    shadow = (
        num_past * _INT32_BYTES
        + geometry.num_kv_heads * packed_keys * geometry.head_dim
        + geometry.num_kv_heads * segments * _FLOAT32_BYTES
    )
    capacity = max(sparse) + index_slack(features)
    if not spec.pilot.pooled:
        scores = dot.register_queries * row_keys * _ROW_BYTES[spec.pilot.row_dtype]
        lists = attention_tile(features).queries * capacity * (_INT32_BYTES + _FLOAT32_BYTES)
        return shadow + threads * (scores + lists)
    scores = dot.register_queries * row_keys * _INT16_BYTES
    weights = row_keys * _INT32_BYTES  # half of that where they are packed
    blocks = -(-num_queries // spec.pilot.query_block)
    lists = spec.num_list_owners * blocks * capacity * _INT32_BYTES
    importance = row_keys * _INT32_BYTES
    return shadow + lists + threads * (scores + weights + importance)


def _padded(count: int, multiple: int) -> int:
    return -(-count // multiple) * multiple
