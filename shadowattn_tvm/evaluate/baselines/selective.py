"""What the sparse baselines share: dense inside the chunk, a selection of the past, exact over it.

All spend the budget of a plan: `keep_count` keys for each query of a head, ties to the lower index.
They differ in the scores they select by.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace

import numpy as np

from tir_kernels.constants import RATIO_ONE
from tir_kernels.spec import AttentionSpec, ShadowSpec, keep_count

from ...errors import ConfigError
from ..attention import AttentionState, Floats
from .attend import Mask, attend_head, causal_mask


class SelectiveAttention(ABC):
    """An `AttentionImplementation` that keeps, of each head's past, what `select` says.

    Parameters
    ----------
    spec : a plan's parameters; of the plan, the baselines read the budget only.
    """

    def __init__(self, spec: ShadowSpec) -> None:
        self.spec = spec
        self.geometry: AttentionSpec = spec.attention

    @abstractmethod
    def select(self, layer: int, head: int, q: Floats, k: Floats, keep: int) -> Mask:
        """`keep` of the past keys `k` (n, D) for each query of `q` (m, D); 0 < keep < n."""

    def paged(self, layer: int, q: Floats, k_past: Floats, v_past: Floats) -> AttentionState:
        """The chunk's queries over their selections of the past."""
        output, lse = np.empty_like(q), np.empty(q.shape[:2], np.float32)
        for head in range(self.geometry.num_q_heads):
            kv_head = head // self.geometry.group_size
            k, v = k_past[:, kv_head], v_past[:, kv_head]
            keep = self.keep(layer, head, len(k))
            chosen = None if keep == len(k) else self.select(layer, head, q[:, head], k, keep)
            output[:, head], lse[:, head] = attend_head(
                q[:, head], k, v, chosen, self.geometry.sm_scale
            )
        return output, lse

    def ragged(self, layer: int, q: Floats, k: Floats, v: Floats) -> AttentionState:
        """The chunk against itself, dense."""
        return causal_attention(self.geometry, q, k, v)

    def keep(self, layer: int, head: int, num_past: int) -> int:
        """How many of `num_past` keys a head keeps; all of them in a dense layer."""
        ratio = self.spec.heads[layer][head].keep_ratio_q16
        return keep_count(num_past, ratio, self.spec.k_min)


def causal_attention(geometry: AttentionSpec, q: Floats, k: Floats, v: Floats) -> AttentionState:
    """`q` (m, Hq, D) against `k`, `v` (n, Hkv, D), n >= m, the last query seeing the last key:
    output (m, Hq, D), base-2 lse (m, Hq), float32."""
    visible = causal_mask(len(q), len(k))
    output, lse = np.empty_like(q), np.empty(q.shape[:2], np.float32)
    for head in range(geometry.num_q_heads):
        kv_head = head // geometry.group_size
        output[:, head], lse[:, head] = attend_head(
            q[:, head], k[:, kv_head], v[:, kv_head], visible, geometry.sm_scale
        )
    return output, lse


def with_uniform_ratio(spec: ShadowSpec, ratio: float) -> ShadowSpec:
    """`spec` with the keep ratio `ratio` in every head of every layer, dense ones included.

    Raises `ConfigError` for a ratio outside 0..1.
    """
    if not 0.0 <= ratio <= 1.0:
        raise ConfigError(f"expected a keep ratio between 0 and 1, got {ratio}")
    ratio_q16 = round(ratio * RATIO_ONE)
    heads = tuple(
        tuple(replace(head, keep_ratio_q16=ratio_q16) for head in layer) for layer in spec.heads
    )
    return replace(spec, heads=heads)
