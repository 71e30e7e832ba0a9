"""NumPy twin of sparse attention, in float64."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .attention import attend

Floats = npt.NDArray[np.floating]
Doubles = npt.NDArray[np.float64]


def sparse_attention(
    q: Floats, k: Floats, v: Floats, lists: list[npt.NDArray[np.int32]], sm_scale: float
) -> tuple[Doubles, Doubles]:
    """Each query of `q` (m, D) over its own rows of `k`, `v` (n, D): output (m, D), base-2 lse
    (m,); zeros and EMPTY_LSE for an empty list."""
    output, lse = np.zeros(q.shape), np.zeros(len(q))
    for i, selected in enumerate(lists):
        everything = np.array([len(selected)])
        rows = attend(q[i : i + 1], k[selected], v[selected], everything, sm_scale)
        output[i], lse[i] = rows[0][0], rows[1][0]
    return output, lse
