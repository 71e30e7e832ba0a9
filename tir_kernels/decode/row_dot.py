"""How a target multiplies an INT8 query by INT8 keys that lie as rows, an element a byte.

In prefill keys are packed so that they lie in lanes (`pilot.int8_dot`). A shadow that grows by a
token at a time stays in rows: lanes run along the head dimension, and a key's lanes are added up in
the end. The same instructions serve, with the words of the query side by side instead of broadcast.
"""

from __future__ import annotations

from tvm.script import tirx as T

from ..arm.int8_dot import sdot
from ..features import CpuFeatures
from ..pilot.int8_dot import Int8DotMethod
from ..simd.vector import Expr, int32_dtype
from ..x86.int8_dot import pair_products

_PAIR = 2
"""Elements that vpmaddwd takes to a lane."""


def row_dot_method(features: CpuFeatures, head_dim: int) -> Int8DotMethod:
    """The method for a vector unit; lanes * group divides the head dim. Keys are signed."""
    if features.int8_dot in ("pmaddwd", "vnni"):
        # vpdpbusd takes unsigned keys; these are read once, so the memory is what they take
        lanes = features.lanes if head_dim % (_PAIR * features.lanes) == 0 else 8
        return Int8DotMethod(lanes, _PAIR, "int16", 0, 1, 1, pair_products(lanes))
    if features.int8_dot in ("dotprod", "i8mm"):
        # smmla wants the rows of two keys interleaved, and half of its products are of no use to
        # one query: decode takes 9 % more instructions with it (512 keys, head dim 64)
        return Int8DotMethod(4, 4, "int8", 0, 1, 1, sdot)
    lanes = features.lanes

    def accumulate(acc: Expr, keys: Expr, query: Expr) -> Expr:
        return acc + T.Cast(int32_dtype(lanes), keys) * query

    return Int8DotMethod(lanes, 1, "int32", 0, 1, 1, accumulate)
