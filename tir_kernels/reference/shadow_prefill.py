"""NumPy twin of the shadowAttn paged prefill: the same selection, then attention in float64."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..pilot.pooling import pooling_step
from ..pilot.quantize import bucket_scales
from ..pilot.requantize import requantizer
from ..spec import ShadowSpec, keep_count
from .attention import paged_prefill, sequence_pages
from .pilot import choose_bucket, hadamard, pilot_scores, quantize
from .pooling import importance
from .requantize import requantize
from .rest import copies_of_the_rest
from .sparse_attention import sparse_attention
from .top_k import top_k

Floats = npt.NDArray[np.floating]
Float32s = npt.NDArray[np.float32]
Int32s = npt.NDArray[np.int32]
Ints = npt.NDArray[np.integer]
Doubles = npt.NDArray[np.float64]


def select(
    spec: ShadowSpec, layer: int, q: Float32s, k: Float32s
) -> list[list[npt.NDArray[np.int32]]]:
    """The ascending lists of all queries `q` (m, Hq, D) over keys `k` (n, Hkv, D), by head, then
    query; rows that share a list each have it."""
    heads = range(spec.attention.num_q_heads)
    scored = [_scores(spec, layer, head, q, k) for head in heads]
    if not spec.pilot.pooled:
        everything = np.ones(len(k), dtype=np.bool_)
        return [
            [top_k(row, everything, _keep(spec, layer, head, k)) for row in scored[head][0]]
            for head in heads
        ]
    unit = spec.attention.group_size if spec.pilot.share_group else 1
    return [_pooled_lists(spec, layer, scored, head // unit * unit, unit, k) for head in heads]


def _keep(spec: ShadowSpec, layer: int, head: int, k: Float32s) -> int:
    return keep_count(len(k), spec.heads[layer][head].keep_ratio_q16, spec.k_min)


def _scores(
    spec: ShadowSpec, layer: int, head: int, q: Float32s, k: Float32s
) -> tuple[Int32s, int]:
    """(m, n) scores of one head, and the step that pooling takes (0 without requantization)."""
    plan, pilot, geometry = spec.heads[layer][head], spec.pilot, spec.attention
    kv_head = head // geometry.group_size
    queries, keys = q[:, head], k[:, kv_head]
    if spec.key_means is not None:
        keys = keys - np.array(spec.key_means[layer][kv_head], np.float32)
    if pilot.hadamard_rotation:
        queries, keys = hadamard(queries), hadamard(keys)
    grid = (spec.bucket_sigma, spec.buckets_per_axis)
    q_bucket = choose_bucket(queries, plan.q_scale, *grid, pilot.quant_max)
    k_bucket = choose_bucket(keys, plan.k_scale, *grid, pilot.quant_max)
    q_scale = bucket_scales(plan.q_scale, *grid)[q_bucket]
    k_scale = bucket_scales(plan.k_scale, *grid)[k_bucket]
    q8 = quantize(queries, np.float32(q_scale), pilot.quant_max)
    k8 = quantize(keys, np.float32(k_scale), pilot.quant_max)
    scores = pilot_scores(q8, k8)
    if plan.requant is None:
        return scores, 0
    factor = plan.requant[q_bucket][k_bucket]
    scores = requantize(scores, requantizer(factor), pilot.score_max)
    return scores, pooling_step(spec.pilot_sm_scale, q_scale, k_scale, factor)


def _pooled_lists(
    spec: ShadowSpec,
    layer: int,
    scored: list[tuple[Int32s, int]],
    first_head: int,
    num_heads: int,
    k: Float32s,
) -> list[npt.NDArray[np.int32]]:
    """The list of each query, pooled over the voters of its block and `num_heads` heads."""
    everything = np.ones(len(k), dtype=np.bool_)
    keep = _keep(spec, layer, first_head, k)
    lists: list[npt.NDArray[np.int32]] = []
    members = scored[first_head : first_head + num_heads]
    num_queries, block = len(members[0][0]), spec.pilot.query_block
    stride = spec.heads[layer][first_head].query_stride
    for first in range(0, num_queries, block):
        end = min(first + block, num_queries)
        votes = importance(
            [scores[first:end:stride] for scores, _ in members], [step for _, step in members]
        )
        lists += [top_k(votes, everything, keep)] * (end - first)
    return lists


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
        if rows.start == rows.stop:
            continue
        lists = select(spec, layer, q[rows], k) if len(k) else _no_lists(spec, q[rows])
        for head in range(geometry.num_q_heads):
            keys, values = (x[:, head // geometry.group_size] for x in (k, v))
            keep, past = len(lists[head][0]), len(keys)
            keys, values = (
                np.concatenate([x, copies_of_the_rest(spec, x, keep)]) for x in (keys, values)
            )
            rest = np.arange(past, len(keys))
            output[rows, head], lse[rows, head] = sparse_attention(
                q[rows, head],
                keys,
                values,
                [np.append(selected, rest) for selected in lists[head]],
                geometry.sm_scale,
            )
    return output, lse


def _no_lists(spec: ShadowSpec, q: Float32s) -> list[list[npt.NDArray[np.int32]]]:
    """Without keys every list is empty."""
    return [[np.empty(0, np.int32)] * len(q)] * spec.attention.num_q_heads
