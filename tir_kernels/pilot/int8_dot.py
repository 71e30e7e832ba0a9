"""How a target multiplies one query by many INT8 keys, and the layout of keys that asks for.

Keys lie in the lanes of an int32 accumulator. One step takes `group` consecutive elements of every
key in a block of `lanes` keys, and the same elements of one query, broadcast as a 32-bit word:

    keys (blocks, head_dim / group, lanes * group)

A matrix instruction takes two queries at once, and half of a block's keys: `query_rows` says so.

All methods give the same exact INT32 scores; they differ in speed only. Which one serves depends on
the vector unit and on how far quantized values reach: small ones have products whose sums fit 16
bits for a while.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from tvm.script import tirx as T

from ..arm.int8_dot import sdot, smmla
from ..constants import INT8_QMAX, MIN_VOTERS
from ..features import CpuFeatures, Int8Dot
from ..simd.vector import Expr, int32_dtype
from ..x86.int8_dot import byte_pair_products, pair_products, pair_sums, vnni

UINT8_KEY_OFFSET = 128
"""What instructions with unsigned keys need added to them."""


_INT16_MAX = 2**15 - 1

_WORTHWHILE_STEPS = 2
"""With one, widening costs as much as pmaddwd does to begin with."""


@dataclass(frozen=True)
class NarrowSums:
    """Products added up in 16 bits, two sums a lane of int32, before they are widened.

    Attributes
    ----------
    max_steps : steps whose products fit, at the least favourable.
    products : `products(keys, query)` = one step's, int16 vectors of `2 * lanes`.
    widened : `widened(sums)` = the two sums of every lane, added, int32.
    """

    max_steps: int
    products: Callable[[Expr, Expr], Expr]
    widened: Callable[[Expr], Expr]

    def steps(self, all_steps: int) -> int:
        """Steps between two widenings: they divide all that there are."""
        return max(n for n in range(1, self.max_steps + 1) if all_steps % n == 0)


@dataclass(frozen=True)
class Int8DotMethod:
    """One way to compute exact INT8 scores.

    Attributes
    ----------
    lanes : keys in a block, the int32 lanes of an accumulator.
    group : elements of the head dimension that one step consumes.
    query_dtype : how a quantized query is stored; `group` elements of the `query_rows` queries of
        a step make 32 bits, or a matrix instruction's operand.
    key_offset : added to each stored key; not 0 means keys are unsigned.
    register_queries, register_blocks : the register tile of the score kernel.
    accumulate : `accumulate(acc, keys, query)` = acc plus one step's products; int32 vectors of
        `lanes`, keys as a vector of `lanes * group` elements, the query's word in every lane.
        With two query rows the keys are half of a block's, `query` is a group of each query, and
        so is `acc` the sums of the one query with these keys, then of the other.
    narrow : a faster way to do several steps, if there is one.
    query_rows : queries that one step multiplies at once; divides `register_queries`.
    """

    lanes: int
    group: int
    query_dtype: Literal["int8", "int16", "int32"]
    key_offset: int
    register_queries: int
    register_blocks: int
    accumulate: Callable[[Expr, Expr, Expr], Expr]
    narrow: NarrowSums | None = None
    query_rows: Literal[1, 2] = 1

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


# Four queries at a time, on every target: what votes on a list is a multiple of that. 8 sums in
# flight hide the latency of one product a cycle. With 6 x 2 a product takes 5 % fewer instructions,
# but a list of 16 queries 18, and its 8 or 4 voters 12 or 6: in all 3 % more time, 24 % or 22 %
# (one AVX512-VNNI core, 4,096 keys). The buffer must stay below 1,024 bytes, beyond which TVM moves
# it from the stack, where LLVM turns it into registers, to the heap.
def _widening(lanes: int) -> Int8DotMethod:
    def accumulate(acc: Expr, keys: Expr, query: Expr) -> Expr:
        return acc + T.Cast(int32_dtype(lanes), keys) * query

    return Int8DotMethod(lanes, 1, "int32", 0, MIN_VOTERS, 2, accumulate)


def _pmaddwd(lanes: int) -> Int8DotMethod:
    return Int8DotMethod(lanes, 2, "int16", 0, MIN_VOTERS, 2, pair_products(lanes))


def _pmaddubsw(lanes: int, quant_max: int) -> Int8DotMethod:
    products, widened = byte_pair_products(lanes), pair_sums(lanes)

    def accumulate(acc: Expr, keys: Expr, query: Expr) -> Expr:
        return acc + widened(products(keys, query))

    narrow = NarrowSums(_narrow_steps(quant_max), products, widened)
    return Int8DotMethod(lanes, 4, "int8", quant_max, MIN_VOTERS, 2, accumulate, narrow)


def _narrow_steps(quant_max: int) -> int:
    """Steps of pmaddubsw that fit 16 bits: each adds two products of an element in -quant_max..
    quant_max with a key in 0..2 * quant_max."""
    return _INT16_MAX // (2 * quant_max * 2 * quant_max)


def _vnni(lanes: int) -> Int8DotMethod:
    return Int8DotMethod(lanes, 4, "int8", UINT8_KEY_OFFSET, MIN_VOTERS, 2, vnni)


def _dotprod(lanes: int) -> Int8DotMethod:
    return Int8DotMethod(lanes, 4, "int8", 0, MIN_VOTERS, 4, sdot)


def _i8mm(lanes: int) -> Int8DotMethod:
    return Int8DotMethod(lanes, 8, "int8", 0, MIN_VOTERS, 4, smmla, query_rows=2)


_METHODS: dict[Int8Dot, Callable[[int], Int8DotMethod]] = {
    "widening": _widening,
    "pmaddwd": _pmaddwd,
    "vnni": _vnni,
    "dotprod": _dotprod,
    "i8mm": _i8mm,
}


def int8_dot_method(features: CpuFeatures, quant_max: int = INT8_QMAX) -> Int8DotMethod:
    """The method for a vector unit and for values in -quant_max..quant_max."""
    if features.int8_dot == "pmaddwd" and _narrow_steps(quant_max) >= _WORTHWHILE_STEPS:
        return _pmaddubsw(features.lanes, quant_max)
    return _METHODS[features.int8_dot](features.lanes)
