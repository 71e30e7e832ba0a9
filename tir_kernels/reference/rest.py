"""NumPy twin of the rest's mean: what stands for the keys that are on no list."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ..rest_sample import rest_positions
from ..spec import ShadowSpec

Floats = npt.NDArray[np.floating]


def copies_of_the_rest(spec: ShadowSpec, rows: Floats, keep: int) -> Floats:
    """Of one KV head's keys, or values, `rows` (n, D), their mean, once for each of n that a list
    of `keep` leaves out: (n - keep, D) float64; (0, D) where the rest is dropped, or too short."""
    sampled = rest_positions(len(rows))
    if spec.rest == "dropped" or len(sampled) == 0:
        return np.empty((0, rows.shape[1]))
    mean = rows[list(sampled)].astype(np.float64).mean(axis=0)
    return np.repeat(mean[None], len(rows) - keep, axis=0)
