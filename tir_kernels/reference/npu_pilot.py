"""NumPy twin of an NPU's pilot: what `shadow.npu_pilot` asks of the registered function."""

from __future__ import annotations

import numpy as np

from ..pilot.requantize import Requantizer
from .pilot import Int8s, Int32s, pilot_scores
from .pooling import importance
from .requantize import requantize


def npu_pilot(
    queries: Int8s, keys: Int8s, heads: Int32s, query_block: int, score_max: int
) -> Int32s:
    """(U, lists, N) int32: the importance of every key to each list of U owners.

    queries (U, G, M, D), keys (U, N, D), heads (U, G, 6); see `shadow.npu_pilot`.
    """
    return np.stack(
        [_owner(*owner, query_block, score_max) for owner in zip(queries, keys, heads, strict=True)]
    )


def _owner(queries: Int8s, keys: Int8s, heads: Int32s, query_block: int, score_max: int) -> Int32s:
    """(lists, N) of one owner, whose heads vote together."""
    scores, steps = list[Int32s](), list[int]()
    for q8, (*_, multiplier, shift, step) in zip(queries, heads.tolist(), strict=True):
        by = Requantizer(shift=shift, multiplier=multiplier)
        scores.append(requantize(pilot_scores(q8, keys), by, score_max))
        steps.append(step)
    firsts = range(0, queries.shape[1], query_block)
    return np.stack(
        [importance([s[first : first + query_block] for s in scores], steps) for first in firsts]
    )
