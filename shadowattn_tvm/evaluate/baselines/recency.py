"""A control that sees the newest keys only: whatever it solves needs no selection."""

from __future__ import annotations

import numpy as np

from ..attention import Floats
from .attend import Mask
from .selective import SelectiveAttention


class RecencyOnly(SelectiveAttention):
    """Each query keeps the newest past keys, as many as the budget allows.

    With a plan whose heads differ, some heads keep everything and would see far back. A control
    for retrieval therefore takes a plan `with_uniform_ratio`.
    """

    def select(self, layer: int, head: int, q: Floats, k: Floats, keep: int) -> Mask:
        """The last `keep` keys, for every query."""
        del layer, head
        return np.broadcast_to(np.arange(len(k)) >= len(k) - keep, (len(q), len(k)))
