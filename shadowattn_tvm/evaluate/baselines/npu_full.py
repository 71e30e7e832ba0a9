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

from tir_kernels.reference.static_int8 import attend_static_int8
from tir_kernels.spec import AttentionSpec, StaticInt8Spec

from ..attention import AttentionState, Floats
from .attend import causal_mask
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
        self._spec = StaticInt8Spec(geometry, scales.q, scales.k, scales.v)
        self._levels = (1 << probability_bits) - 1
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
        visible = causal_mask(len(q), len(k))
        output, lse, _ = attend_static_int8(self._spec, layer, q, k, v, visible, self._levels)
        return output, lse
