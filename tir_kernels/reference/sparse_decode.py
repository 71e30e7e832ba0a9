"""NumPy twins of sparse decode: the shadow's bytes and the lists, bit for bit; attention in
float64."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..pilot.quantize import bucket_scales
from ..pilot.shadow_rows import has_key_maxima, keys_per_row
from ..spec import ShadowSpec, keep_count
from .attention import append as append_rows
from .attention import sequence_pages
from .pilot import choose_scale, hadamard, pilot_scores, quantize
from .sparse_attention import sparse_attention
from .top_k import top_k

Float32s = npt.NDArray[np.float32]
Int8s = npt.NDArray[np.int8]
Int32s = npt.NDArray[np.int32]
Ints = npt.NDArray[np.integer]
Doubles = npt.NDArray[np.float64]


def pilot_keys(spec: ShadowSpec, layer: int, k: Float32s) -> Float32s:
    """Keys (n, Hkv, D) as the pilot sees them."""
    keys = k if spec.key_means is None else k - np.array(spec.key_means[layer], np.float32)
    return hadamard(keys) if spec.pilot.hadamard_rotation else keys


def key_shadow(spec: ShadowSpec, layer: int, k: Float32s) -> Int8s:
    """The INT8 shadow (n, Hkv, D) of keys `k` (n, Hkv, D): each KV head at the middle scale of its
    grid, whatever its keys measure."""
    keys = pilot_keys(spec, layer, k)
    middle = spec.buckets_per_axis // 2
    heads = spec.heads[layer][:: spec.attention.group_size]
    shadow = [
        quantize(
            keys[:, kv_head],
            np.float32(
                bucket_scales(head.k_scale, spec.bucket_sigma, spec.buckets_per_axis)[middle]
            ),
            spec.pilot.quant_max,
        )
        for kv_head, head in enumerate(heads)
    ]
    return np.stack(shadow, axis=1)


def append(
    spec: ShadowSpec, layer: int, pages: Float32s, k: Float32s, v: Float32s, positions: Ints
) -> None:
    """Write keys and values (tokens, Hkv, D), the keys' shadow and, if there is room, their maxima
    to `pages`, in place; position page * page_size + slot, or -1 = nowhere."""
    geometry = spec.attention
    hkv, dim = geometry.num_kv_heads, geometry.head_dim
    append_rows(geometry, pages, k, v, positions)
    kept = np.asarray(positions) >= 0
    page, slot = np.divmod(np.asarray(positions)[kept], geometry.page_size)
    shadow = key_shadow(spec, layer, k[kept])
    bytes_view = pages.view(np.int8)  # (num_pages, 2, Hs, page_size, element_bytes * D)
    kept_bytes = list(shadow.transpose(1, 0, 2))
    if has_key_maxima(geometry):
        maxima = np.abs(pilot_keys(spec, layer, k[kept])).max(-1).astype(np.float32)
        kept_bytes.append(maxima.view(np.int8))
    for index, values in enumerate(kept_bytes):
        row, rest = divmod(index, keys_per_row(geometry))
        plane, part = divmod(rest, geometry.element_bytes)
        columns = slice(part * dim, part * dim + values.shape[1])
        bytes_view[page, plane, hkv + row, slot, columns] = values


def select(spec: ShadowSpec, layer: int, q: Float32s, k: Float32s) -> list[Int32s]:
    """The ascending list of each head of a new token `q` (Hq, D) over the keys `k` (n, Hkv, D), of
    which the last is its own; n is at least 1."""
    older = len(k) - 1
    shadow = key_shadow(spec, layer, k)
    everything = np.ones(older, dtype=np.bool_)
    lists = []
    for head, plan in enumerate(spec.heads[layer]):
        query = hadamard(q[head]) if spec.pilot.hadamard_rotation else q[head]
        grid = (spec.bucket_sigma, spec.buckets_per_axis, spec.pilot.quant_max)
        q8 = quantize(query, choose_scale(query, plan.q_scale, *grid), spec.pilot.quant_max)
        k8 = shadow[:older, head // spec.attention.group_size]
        keep = keep_count(older, plan.keep_ratio_q16, spec.k_min)
        chosen = top_k(pilot_scores(q8[None], k8)[0], everything, keep)
        lists.append(np.append(chosen, np.int32(older)))
    return lists


def attended(spec: ShadowSpec, layer: int, q: Float32s, k: Float32s) -> list[Int32s]:
    """What each head attends to: its list, or everything if one of its group lists everything."""
    if len(k) == 0:
        return [np.empty(0, np.int32)] * spec.attention.num_q_heads
    lists = select(spec, layer, q, k)
    group = spec.attention.group_size
    for first in range(0, len(lists), group):
        longest = max(lists[first : first + group], key=len)
        if len(longest) == len(k):
            lists[first : first + group] = [longest] * group
    return lists


def sparse_paged_decode(
    spec: ShadowSpec,
    layer: int,
    q: Float32s,
    pages: Float32s,
    page_indptr: Ints,
    page_values: Ints,
    last_page_len: Ints,
) -> tuple[Doubles, Doubles]:
    """Twin of the kernel: output (batch, Hq, D), lse (batch, Hq). The shadow is taken from the keys
    themselves, not from the pages' bytes."""
    geometry = spec.attention
    output, lse = np.zeros(q.shape), np.zeros(q.shape[:2])
    for b in range(len(q)):
        page_ids = page_values[page_indptr[b] : page_indptr[b + 1]]
        k, v = sequence_pages(geometry, pages, page_ids, int(last_page_len[b]))
        keys = np.asarray(k, np.float32)
        lists = attended(spec, layer, q[b], keys)
        for head in range(geometry.num_q_heads):
            kv_head = head // geometry.group_size
            rows = sparse_attention(
                q[b, head][None], k[:, kv_head], v[:, kv_head], [lists[head]], geometry.sm_scale
            )
            output[b, head], lse[b, head] = rows[0][0], rows[1][0]
    return output, lse
