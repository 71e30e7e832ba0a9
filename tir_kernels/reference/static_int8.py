"""NumPy twin of NPU-Full: the whole attention with static INT8 operands, in float32.

Sums of products stay below 2^24, where float32 counts exactly (probabilities add up to about one,
so those with values do as well); only the softmax rounds.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..constants import EMPTY_LSE, INT8_QMAX, LOG2_E, PROBABILITY_LEVELS
from ..spec import StaticInt8Spec
from .attention import sequence_pages

Floats = npt.NDArray[np.float32]
Ints = npt.NDArray[np.integer]
Bools = npt.NDArray[np.bool_]

_ROUNDING = 1e-5
"""How far a probability may be off, as a part of it; in practice ten times less."""


def attend_static_int8(
    spec: StaticInt8Spec,
    layer: int,
    q: Floats,
    k: Floats,
    v: Floats,
    visible: Bools,
    levels: int = PROBABILITY_LEVELS,
) -> tuple[Floats, Floats, Bools]:
    """`q` (m, Hq, D) against the `visible` (m, n) of `k`, `v` (n, Hkv, D): output (m, Hq, D), lse
    (m, Hq) in base 2, and `decided` (m, Hq): false where a probability is so near the middle of two
    levels that another rounding of the softmax may take the other.

    `round(probability * levels)` weighs the values. Zeros and EMPTY_LSE where nothing is visible.
    """
    geometry = spec.attention
    q8, k8, v8 = (
        _quantize(tensor, scales[layer])
        for tensor, scales in ((q, spec.q_scales), (k, spec.k_scales), (v, spec.v_scales))
    )
    output, lse = np.empty(q.shape, np.float32), np.empty(q.shape[:2], np.float32)
    decided = np.empty(q.shape[:2], np.bool_)
    for head in range(geometry.num_q_heads):
        kv_head = head // geometry.group_size
        scores = (q8[:, head] @ k8[:, kv_head].T) * np.float32(spec.score_scale(layer))
        probabilities, lse[:, head] = _softmax(scores, visible, levels)
        weights = np.rint(probabilities)
        output[:, head] = (weights @ v8[:, kv_head]) * np.float32(spec.v_scales[layer] / levels)
        to_middle = np.abs(np.abs(probabilities - weights) - np.float32(0.5))
        decided[:, head] = (to_middle > _ROUNDING * probabilities).all(axis=1)
    return output, lse, decided


def _softmax(scores: Floats, visible: Bools, levels: int) -> tuple[Floats, Floats]:
    """Probabilities of each row of `scores` (m, n) times `levels`, base-2 lse (m,)."""
    scores[~visible] = -np.inf
    largest = scores.max(axis=1, initial=-np.inf)
    empty = np.isneginf(largest)
    largest[empty] = 0.0
    weights = np.exp(scores - largest[:, None])
    total = weights.sum(axis=1)
    total[empty] = 1.0
    lse = (largest + np.log(total)) * np.float32(LOG2_E)
    lse[empty] = EMPTY_LSE
    return weights * (np.float32(levels) / total[:, None]), lse


def _quantize(x: Floats, scale: float) -> Floats:
    """INT8 values, held in float32."""
    rounded: Floats = np.rint(x / np.float32(scale))
    return np.clip(rounded, np.float32(-INT8_QMAX), np.float32(INT8_QMAX))


def static_int8_paged_prefill(
    spec: StaticInt8Spec,
    layer: int,
    q: Floats,
    q_indptr: Ints,
    pages: Floats,
    page_indptr: Ints,
    page_values: Ints,
    last_page_len: Ints,
    causal: bool,
) -> tuple[Floats, Floats, Bools]:
    """Twin of the kernel, results as of `attend_static_int8`; output and lse of rows outside
    `q_indptr` are NaN."""
    output, lse = (np.full(shape, np.nan, np.float32) for shape in (q.shape, q.shape[:2]))
    decided = np.ones(q.shape[:2], np.bool_)
    for b in range(len(q_indptr) - 1):
        rows = slice(q_indptr[b], q_indptr[b + 1])
        page_ids = page_values[page_indptr[b] : page_indptr[b + 1]]
        k, v = sequence_pages(spec.attention, pages, page_ids, int(last_page_len[b]))
        num_queries, num_keys = rows.stop - rows.start, len(k)
        limits = num_keys - num_queries + 1 + np.arange(num_queries) if causal else num_keys
        visible = np.arange(num_keys) < np.broadcast_to(limits, num_queries)[:, None]
        output[rows], lse[rows], decided[rows] = attend_static_int8(
            spec, layer, q[rows], k, v, visible
        )
    return output, lse, decided
