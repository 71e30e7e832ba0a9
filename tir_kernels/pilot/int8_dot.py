"""How a target multiplies one query by many INT8 keys, and the layout of keys that asks for.

Keys lie in the lanes of an int32 accumulator. One step takes `group` consecutive elements of every
key in a block of `lanes` keys, and the same elements of one query, broadcast as a 32-bit word:

    keys (blocks, head_dim / group, lanes * group)

All methods give the same exact INT32 scores; they differ in speed only.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from tvm.script import tirx as T

from ..arm.int8_dot import sdot
from ..features import CpuFeatures, Int8Dot
from ..simd.vector import Expr, int32_dtype
from ..x86.int8_dot import pair_products, vnni

UINT8_KEY_OFFSET = 128
"""What instructions with unsigned keys need added to them."""


@dataclass(frozen=True)
class Int8DotMethod:
    """One way to compute exact INT8 scores.

    Attributes
    ----------
    lanes : keys in a block, the int32 lanes of an accumulator.
    group : elements of the head dimension that one step consumes.
    query_dtype : how a quantized query is stored; `group` elements make 32 bits.
    key_offset : added to each stored key; not 0 means keys are unsigned.
    register_queries, register_blocks : the register tile of the score kernel.
    accumulate : `accumulate(acc, keys, query)` = acc plus one step's products; int32 vectors of
        `lanes`, keys as a vector of `lanes * group` elements, the query's word in every lane.
    """

    lanes: int
    group: int
    query_dtype: Literal["int8", "int16", "int32"]
    key_offset: int
    register_queries: int
    register_blocks: int
    accumulate: Callable[[Expr, Expr, Expr], Expr]

    @property
    def key_dtype(self) -> Literal["int8", "uint8"]:
        """How a quantized key is stored."""
        return "uint8" if self.key_offset else "int8"

    @property
    def register_scores(self) -> int:
        """Accumulated scores of one register tile."""
        return self.register_queries * self.register_keys

    @property
    def register_keys(self) -> int:
        """Keys of one register tile; packed keys are padded to a multiple of it."""
        return self.lanes * self.register_blocks


# 16 registers hold 6 x 2 accumulators, two key vectors, a query and a product. 32 registers could
# hold more, but the buffer must stay below 1,024 bytes, beyond which TVM moves it from the stack,
# where LLVM turns it into registers, to the heap; 12 sums in flight hide the latency already.
def _widening(lanes: int) -> Int8DotMethod:
    def accumulate(acc: Expr, keys: Expr, query: Expr) -> Expr:
        return acc + T.Cast(int32_dtype(lanes), keys) * query

    return Int8DotMethod(lanes, 1, "int32", 0, 4, 2, accumulate)


def _pmaddwd(lanes: int) -> Int8DotMethod:
    return Int8DotMethod(lanes, 2, "int16", 0, 6, 2, pair_products(lanes))


def _vnni(lanes: int) -> Int8DotMethod:
    return Int8DotMethod(lanes, 4, "int8", UINT8_KEY_OFFSET, 3, 4, vnni)


def _dotprod(lanes: int) -> Int8DotMethod:
    return Int8DotMethod(lanes, 4, "int8", 0, 4, 4, sdot)


_METHODS: dict[Int8Dot, Callable[[int], Int8DotMethod]] = {
    "widening": _widening,
    "pmaddwd": _pmaddwd,
    "vnni": _vnni,
    "dotprod": _dotprod,
}


def int8_dot_method(features: CpuFeatures) -> Int8DotMethod:
    """The method for a vector unit."""
    return _METHODS[features.int8_dot](features.lanes)
