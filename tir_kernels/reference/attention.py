"""NumPy twins of the dense attention kernels, in float64.

Contents
- `attend`: one head's queries against one head's keys, each query up to its own limit.
- `ragged_prefill`, `paged_prefill`, `paged_decode`: the slots of the paged KV cache.
- `merge_states`: two parts of an attention into one.
- `append`: new keys and values into their pages.
- `sequence_pages`: a sequence's keys and values out of its pages.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..constants import EMPTY_LSE, LOG2_E
from ..spec import AttentionSpec

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.integer]
Doubles = npt.NDArray[np.float64]


def attend(
    q: Floats, k: Floats, v: Floats, limits: Ints, sm_scale: float
) -> tuple[Doubles, Doubles]:
    """`q` (m, D) against the first `limits[m]` rows of `k`, `v` (n, D): output (m, D), lse (m,).

    lse is in base 2; zeros and EMPTY_LSE where the limit is 0 or less.
    """
    scores = q.astype(np.float64) @ k.astype(np.float64).T * (sm_scale * LOG2_E)
    seen = np.arange(len(k)) < np.asarray(limits)[:, None]
    largest = np.max(scores, axis=1, initial=-np.inf, where=seen)
    empty = ~seen.any(axis=1)
    largest[empty] = 0.0
    weights = np.where(seen, np.exp2(np.minimum(scores - largest[:, None], 0.0)), 0.0)
    total = weights.sum(axis=1)
    total[empty] = 1.0
    lse = np.where(empty, EMPTY_LSE, largest + np.log2(total))
    return weights @ v.astype(np.float64) / total[:, None], lse


def _limits(num_queries: int, num_keys: int, causal: bool) -> Ints:
    """Keys each query sees: all of them, or up to the one aligned with it at the end."""
    if not causal:
        return np.full(num_queries, num_keys)
    return num_keys - num_queries + 1 + np.arange(num_queries)


def _attend_sequence(
    spec: AttentionSpec, q: Floats, k: Floats, v: Floats, causal: bool
) -> tuple[Doubles, Doubles]:
    """`q` (m, Hq, D), `k`, `v` (n, Hkv, D): output (m, Hq, D), lse (m, Hq)."""
    limits = _limits(len(q), len(k), causal)
    output = np.zeros(q.shape)
    lse = np.zeros(q.shape[:2])
    for head in range(spec.num_q_heads):
        kv_head = head // spec.group_size
        output[:, head], lse[:, head] = attend(
            q[:, head], k[:, kv_head], v[:, kv_head], limits, spec.sm_scale
        )
    return output, lse


def sequence_pages(
    spec: AttentionSpec, pages: Floats, page_ids: Ints, last_page_len: int
) -> tuple[Floats, Floats]:
    """K and V, each (n, Hkv, D), of the sequence held by `pages[page_ids]`."""
    num_keys = max(0, (len(page_ids) - 1) * spec.page_size + last_page_len)
    planes = pages[page_ids].transpose(1, 0, 3, 2, 4)  # (2, pages, page_size, Hs, D)
    stored = planes.reshape(2, -1, spec.stored_heads, spec.head_dim)
    k, v = stored[:, :num_keys, : spec.num_kv_heads]
    return k, v


def ragged_prefill(
    spec: AttentionSpec,
    q: Floats,
    q_indptr: Ints,
    k: Floats,
    v: Floats,
    kv_indptr: Ints,
    causal: bool,
) -> tuple[Doubles, Doubles]:
    """Twin of `dense_ragged_prefill`; rows outside `q_indptr` are NaN."""
    output = np.full(q.shape, np.nan)
    lse = np.full(q.shape[:2], np.nan)
    for b in range(len(q_indptr) - 1):
        rows = slice(q_indptr[b], q_indptr[b + 1])
        keys = slice(kv_indptr[b], kv_indptr[b + 1])
        output[rows], lse[rows] = _attend_sequence(spec, q[rows], k[keys], v[keys], causal)
    return output, lse


def paged_prefill(
    spec: AttentionSpec,
    q: Floats,
    q_indptr: Ints,
    pages: Floats,
    page_indptr: Ints,
    page_values: Ints,
    last_page_len: Ints,
    causal: bool,
) -> tuple[Doubles, Doubles]:
    """Twin of `dense_paged_prefill`; rows outside `q_indptr` are NaN."""
    output = np.full(q.shape, np.nan)
    lse = np.full(q.shape[:2], np.nan)
    for b in range(len(q_indptr) - 1):
        rows = slice(q_indptr[b], q_indptr[b + 1])
        page_ids = page_values[page_indptr[b] : page_indptr[b + 1]]
        k, v = sequence_pages(spec, pages, page_ids, int(last_page_len[b]))
        output[rows], lse[rows] = _attend_sequence(spec, q[rows], k, v, causal)
    return output, lse


def paged_decode(
    spec: AttentionSpec,
    q: Floats,
    pages: Floats,
    page_indptr: Ints,
    page_values: Ints,
    last_page_len: Ints,
) -> tuple[Doubles, Doubles]:
    """Twin of `dense_paged_decode`: one query per sequence."""
    return paged_prefill(
        spec,
        q,
        np.arange(len(q) + 1),
        pages,
        page_indptr,
        page_values,
        last_page_len,
        causal=False,
    )


def merge_states(v: Floats, s: Floats, v_other: Floats, s_other: Floats) -> tuple[Doubles, Doubles]:
    """Twin of `merge_states`, not in place: the merged output and its lse."""
    s, s_other = s.astype(np.float64), s_other.astype(np.float64)
    largest = np.maximum(s, s_other)
    weight, weight_other = np.exp2(s - largest), np.exp2(s_other - largest)
    total = weight + weight_other
    merged = v * (weight / total)[..., None] + v_other * (weight_other / total)[..., None]
    return merged, np.where(largest > EMPTY_LSE, largest + np.log2(total), EMPTY_LSE)


def append(spec: AttentionSpec, pages: Floats, k: Floats, v: Floats, positions: Ints) -> None:
    """Write keys and values (tokens, Hkv, D) to `pages`, in place; position
    page * page_size + slot, or -1 = nowhere."""
    kept = np.asarray(positions) >= 0
    page, slot = np.divmod(np.asarray(positions)[kept], spec.page_size)
    hkv = spec.num_kv_heads
    pages[page, 0, :hkv, slot], pages[page, 1, :hkv, slot] = k[kept], v[kept]
