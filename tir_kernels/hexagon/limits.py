"""Upper limits of scores: what lets keys beyond the last one have the lowest score there is.

A minimum with a vector of limits masks them with one instruction, which also clamps the others.
Only the last tile of a row is cut off somewhere, at the same place in every row, so all vectors of
limits are made once. Comparing anew for every vector costs more than the products.
"""

from __future__ import annotations

from tvm.script import tirx as T

from ..simd.vector import Expr, splat
from .hvx import VECTOR, WORDS, words
from .score_tile import TILE_KEYS


@T.meta_class
class TileLimits:
    """Made inside a kernel, then `start`ed.

    Parameters
    ----------
    lanes : keys of a vector of scores: WORDS of int32, HALVES of int16.
    most, padding : limits of keys that count, and of those that don't.
    """

    def __init__(self, lanes: int, most: int, padding: int, num_keys: Expr) -> None:
        self.lanes = lanes
        self.most = most
        self.padding = padding
        self.num_keys = num_keys
        self.vectors = TILE_KEYS // lanes
        self.table = [
            T.alloc_buffer((2, WORDS), "int32") for _ in range(self.vectors)
        ]  # of whole tiles, of the last

    def start(self) -> None:
        """Plain Python."""
        dtype = "int32" if self.lanes == WORDS else "int16"
        rest = T.bind((self.num_keys - 1) % TILE_KEYS + 1)
        most = splat(T.Cast(dtype, T.int32(self.most)), self.lanes)
        padding = splat(T.Cast(dtype, T.int32(self.padding)), self.lanes)
        for vector, limits in enumerate(self.table):
            lanes = f"{dtype}x{self.lanes}"
            positions = T.Cast(
                lanes, splat(T.int32(vector * self.lanes), self.lanes) + T.ramp(0, 1, self.lanes)
            )
            inside = positions < T.Cast(lanes, splat(rest, self.lanes))
            T.buffer_store(limits, T.reinterpret(VECTOR, most), [0, words(0)])
            T.buffer_store(
                limits, T.reinterpret(VECTOR, T.Select(inside, most, padding)), [1, words(0)]
            )

    def of(self, tile: Expr, vector: int) -> Expr:
        """The limits of a tile's vector of scores."""
        is_cut = T.Cast("int32", (tile + 1) * TILE_KEYS > self.num_keys)
        return self.table[vector][is_cut, words(0)]
