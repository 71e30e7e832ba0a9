"""shadowAttn in NumPy, by the integers of the kernels' twin: slow, for checks."""

from __future__ import annotations

import numpy as np

from tir_kernels.reference.shadow_prefill import select
from tir_kernels.spec import ShadowSpec

from ..attention import AttentionState, Floats
from .attend import attend_head
from .selective import causal_attention


class ShadowTwin:
    """An `AttentionImplementation` that selects what a plan's kernel selects, to the index, and
    attends in float32."""

    def __init__(self, spec: ShadowSpec) -> None:
        self.spec = spec

    def paged(self, layer: int, q: Floats, k_past: Floats, v_past: Floats) -> AttentionState:
        """Every row over its list."""
        geometry = self.spec.attention
        lists = select(self.spec, layer, np.ascontiguousarray(q), k_past)
        output, lse = np.empty_like(q), np.empty(q.shape[:2], np.float32)
        for head, rows in enumerate(lists):
            kv_head = head // geometry.group_size
            chosen = np.zeros((len(q), len(k_past)), np.bool_)
            for row, keys in zip(chosen, rows, strict=True):
                row[keys] = True
            output[:, head], lse[:, head] = attend_head(
                q[:, head], k_past[:, kv_head], v_past[:, kv_head], chosen, geometry.sm_scale
            )
        return output, lse

    def ragged(self, layer: int, q: Floats, k: Floats, v: Floats) -> AttentionState:
        """The chunk against itself, dense."""
        del layer
        return causal_attention(self.spec.attention, q, k, v)
