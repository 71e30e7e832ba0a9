"""Which keys of the past count for its mean: every so many-th, the middle one of its stretch.

The very first are never among them: models park attention on those, and they are like no others.
"""

from __future__ import annotations

from dataclasses import dataclass

from tvm.script import tirx as T

from .constants import REST_SAMPLES, REST_STRIDE
from .simd.vector import Expr


def rest_positions(num_past: int) -> range:
    """The positions of `num_past` that are sampled; none of a few."""
    stride = max(REST_STRIDE, -(-num_past // REST_SAMPLES))
    return range(stride // 2, num_past, stride)


@dataclass(frozen=True)
class RestSample:
    """`rest_positions` in a kernel, int32 all: `count` positions, `stride` apart, from `first`."""

    first: Expr
    stride: Expr
    count: Expr

    @classmethod
    def of(cls, num_past: Expr) -> RestSample:
        stride = T.bind(T.max(REST_STRIDE, T.ceildiv(num_past, REST_SAMPLES)))
        first = T.bind(stride // 2)
        return cls(first, stride, T.bind(T.ceildiv(T.max(num_past - first, 0), stride)))
