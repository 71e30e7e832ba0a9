"""NPU-Full: the whole attention with static per-tensor INT8 operands (paper, baselines).

What is quantized: queries, keys and values with one static scale a layer each, and the softmax
probabilities with the static scale 1/255 (8 bits) or 1/65535 (16 bits), as the graph of an NPU has
them. What is not: scores stay INT32 until the softmax, which is computed in float, and the output
is float. An NPU that also keeps scores and outputs in INT8 loses more, so this baseline is
generous to NPU-Full.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from tir_kernels.constants import INT8_QMAX, LOG2_E
from tir_kernels.spec import AttentionSpec

from ..attention import AttentionState, Floats
from .attend import Mask, causal_mask
from .static_scales import StaticScales

ALONE_OCTAVES = 256.0
"""Added to the lse of a part that stands for the whole: the merge then gives the other part a
weight below 2^-126, which vanishes in float32."""


class NpuFull:
    """An `AttentionImplementation` of past and chunk together.

    The chunk's probabilities and the past's come from one softmax, so `paged` computes the whole
    and outweighs `ragged`, whose keys it remembers. A model must call `ragged` before `paged` for
    each layer of a chunk, as TVM's runtime does.
    """

    def __init__(
        self, geometry: AttentionSpec, scales: StaticScales, probability_bits: Literal[8, 16]
    ) -> None:
        self._geometry = geometry
        self._scales = scales
        self._levels = np.float32((1 << probability_bits) - 1)
        self._chunk: tuple[int, Floats, Floats] | None = None

    def ragged(self, layer: int, q: Floats, k: Floats, v: Floats) -> AttentionState:
        """The chunk against itself: the whole where there is no past."""
        self._chunk = (layer, k.copy(), v.copy())
        return self._whole(layer, q, k, v)

    def paged(self, layer: int, q: Floats, k_past: Floats, v_past: Floats) -> AttentionState:
        """The past and the chunk, with an lse that makes the merge take this part alone."""
        assert self._chunk is not None, "ragged comes before paged"
        chunk_layer, k, v = self._chunk
        assert (chunk_layer, len(k)) == (layer, len(q)), (chunk_layer, len(k), layer, len(q))
        keys, values = np.concatenate([k_past, k]), np.concatenate([v_past, v])
        output, lse = self._whole(layer, q, keys, values)
        return output, lse + np.float32(ALONE_OCTAVES)

    def _whole(self, layer: int, q: Floats, k: Floats, v: Floats) -> AttentionState:
        scales, geometry = self._scales, self._geometry
        q8, k8, v8 = (
            _quantize(tensor, scale[layer])
            for tensor, scale in ((q, scales.q), (k, scales.k), (v, scales.v))
        )
        score_scale = np.float32(scales.q[layer] * scales.k[layer] * geometry.sm_scale)
        visible = causal_mask(len(q), len(k))
        output, lse = np.empty_like(q), np.empty(q.shape[:2], np.float32)
        for head in range(geometry.num_q_heads):
            kv_head = head // geometry.group_size
            weights, lse[:, head] = self._probabilities(
                (q8[:, head] @ k8[:, kv_head].T) * score_scale, visible
            )
            output[:, head] = (weights @ v8[:, kv_head]) * np.float32(
                scales.v[layer] / self._levels
            )
        return output, lse

    def _probabilities(self, scores: Floats, visible: Mask) -> tuple[Floats, Floats]:
        """Softmax of each row of `scores` (m, n) in units of its last bit, base-2 lse (m,)."""
        scores[~visible] = -np.inf
        largest = scores.max(axis=1)
        weights = np.exp(scores - largest[:, None])
        total = weights.sum(axis=1)
        levels = np.rint(weights * (self._levels / total[:, None]))
        return levels, (largest + np.log(total)) * np.float32(LOG2_E)


def _quantize(x: Floats, scale: float) -> Floats:
    """INT8 values of `x`, held in float32: sums of their products stay below 2^24, where float32
    counts exactly (probabilities add up to one, so those with values do as well)."""
    rounded: Floats = np.rint(x / np.float32(scale))
    return np.clip(rounded, np.float32(-INT8_QMAX), np.float32(INT8_QMAX))
