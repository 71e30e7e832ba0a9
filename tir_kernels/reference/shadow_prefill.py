"""NumPy twin of the shadowAttn paged prefill: the same selection, then attention in float64."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..spec import ShadowSpec, keep_count
from .attention import paged_prefill, sequence_pages
from .pilot import choose_scale, pilot_scores, quantize
from .sparse_attention import sparse_attention
from .top_k import top_k

Floats = npt.NDArray[np.floating]
Float32s = npt.NDArray[np.float32]
Ints = npt.NDArray[np.integer]
Doubles = npt.NDArray[np.float64]


def select(
    spec: ShadowSpec, layer: int, head: int, q: Float32s, k: Float32s
) -> list[npt.NDArray[np.int32]]:
    """The lists of a head's queries `q` (m, D) over its keys `k` (n, D)."""
    plan = spec.heads[layer][head]
    keep = keep_count(len(k), plan.keep_ratio_q16, spec.k_min)
    q8 = quantize(q, choose_scale(q, plan.q_scale, spec.bucket_sigma))
    k8 = quantize(k, choose_scale(k, plan.k_scale, spec.bucket_sigma))
    everything = np.ones(len(k), dtype=np.bool_)
    return [top_k(row, everything, keep) for row in pilot_scores(q8, k8)]


def shadow_paged_prefill(
    spec: ShadowSpec,
    layer: int,
    q: Float32s,
    q_indptr: Ints,
    pages: Float32s,
    page_indptr: Ints,
    page_values: Ints,
    last_page_len: Ints,
    causal: bool,
) -> tuple[Doubles, Doubles]:
    """Twin of the kernel: output (tokens, Hq, D), lse (tokens, Hq); rows outside `q_indptr` are
    NaN."""
    geometry = spec.attention
    if causal:
        return paged_prefill(
            geometry, q, q_indptr, pages, page_indptr, page_values, last_page_len, causal
        )
    output, lse = np.full(q.shape, np.nan), np.full(q.shape[:2], np.nan)
    for b in range(len(q_indptr) - 1):
        rows = slice(q_indptr[b], q_indptr[b + 1])
        page_ids = page_values[page_indptr[b] : page_indptr[b + 1]]
        k, v = sequence_pages(geometry, pages, page_ids, int(last_page_len[b]))
        for head in range(geometry.num_q_heads):
            keys, values = (x[:, head // geometry.group_size] for x in (k, v))
            lists = select(spec, layer, head, q[rows, head], keys)
            output[rows, head], lse[rows, head] = sparse_attention(
                q[rows, head], keys, values, lists, geometry.sm_scale
            )
    return output, lse
