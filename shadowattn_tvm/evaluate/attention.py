"""What evaluation needs of an attention method, so that every method runs in the same model.

An implementation works on one sequence and one prefill chunk at a time, layer by layer. The
compiled model (`open_model`) gives it rotated queries and keys in its two prefill slots and merges
the two parts by their base-2 log-sum-exp, exactly as it does for the kernels of a plan.
"""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]
AttentionState = tuple[Floats, Floats]
"""Output (m, Hq, D) and base-2 log-sum-exp of the scaled scores (m, Hq), both float32."""


class AttentionImplementation(Protocol):
    """Attention of one chunk of m new tokens: `q` (m, Hq, D) float32, rotary embedding applied.

    Arrays passed in are views of the model's memory: valid during the call, not to be written.
    What is returned is copied. Query head h reads KV head h // (Hq / Hkv). Where a row sees no key,
    its output is zero and its log-sum-exp `tir_kernels.constants.EMPTY_LSE`.
    """

    def paged(self, layer: int, q: Floats, k_past: Floats, v_past: Floats) -> AttentionState:
        """The chunk against everything older: `k_past`, `v_past` (n, Hkv, D), n >= 1; every query
        sees all of it."""
        ...

    def ragged(self, layer: int, q: Floats, k: Floats, v: Floats) -> AttentionState:
        """The chunk against itself, causally: `k`, `v` (m, Hkv, D); query i sees keys 0..i."""
        ...
