"""C/G-Full: dense float32 attention, the lossless reference (paper, baselines)."""

from __future__ import annotations

import numpy as np

from tir_kernels.spec import AttentionSpec

from ..attention import AttentionState, Floats
from .attend import attend_head
from .selective import causal_attention


class Full:
    """An `AttentionImplementation` that leaves nothing out."""

    def __init__(self, geometry: AttentionSpec) -> None:
        self.geometry = geometry

    def paged(self, layer: int, q: Floats, k_past: Floats, v_past: Floats) -> AttentionState:
        """Every query over the whole past."""
        del layer
        output, lse = np.empty_like(q), np.empty(q.shape[:2], np.float32)
        for head in range(self.geometry.num_q_heads):
            kv_head = head // self.geometry.group_size
            output[:, head], lse[:, head] = attend_head(
                q[:, head], k_past[:, kv_head], v_past[:, kv_head], None, self.geometry.sm_scale
            )
        return output, lse

    def ragged(self, layer: int, q: Floats, k: Floats, v: Floats) -> AttentionState:
        """The chunk against itself."""
        del layer
        return causal_attention(self.geometry, q, k, v)
