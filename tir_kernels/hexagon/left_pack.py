"""The chosen of 128 keys, moved together: numbers of keys, one a byte.

HVX has no instruction that does it. A chosen key has to move down by the number of keys before it
that are not chosen, and goes there bit by bit of that distance, the lowest first: in each of seven
rounds bytes whose distance has the bit move by that power of two. None lands on one that stays:
two chosen keys never come closer than their distances allow. ("Hacker's Delight", compress)
"""

from __future__ import annotations

from tvm.script import tirx as T

from ..simd.vector import Expr
from .hvx import (
    VECTOR,
    VECTOR_BYTES,
    WORDS,
    drop_bytes,
    has_bits,
    keep_bytes,
    last_byte,
    pick_bytes,
    prefix_sum,
    rotate,
    subtract_bytes,
    words,
)

_ROUNDS = VECTOR_BYTES.bit_length() - 1


@T.meta_class
class LeftPack:
    """Made inside a kernel, then `start`ed.

    Attributes
    ----------
    packed : (32,) int32, 128 bytes: the numbers of the chosen keys; bytes beyond mean nothing.
    """

    def __init__(self) -> None:
        self.numbers = T.alloc_buffer((WORDS,), "int32")
        self.packed = T.alloc_buffer((WORDS,), "int32")
        # in memory, not bound: TVM's simplifier takes bound values apart, for minutes here
        self.distances = T.alloc_buffer((WORDS,), "int32")

    def start(self) -> None:
        """Plain Python, as is the next: the bytes 0 to 127."""
        bytes_ = T.Cast(f"int8x{VECTOR_BYTES}", T.ramp(T.int32(0), 1, VECTOR_BYTES))
        T.buffer_store(self.numbers, T.reinterpret(VECTOR, bytes_), [words(0)])

    def pack(self, chosen: Expr, one: Expr) -> Expr:
        """`packed` = the chosen keys' numbers, ascending; how many there are, an int32 scalar,
        bound. `chosen` is a predicate, `one` has 1 in every byte."""
        packed, distances = self.packed, self.distances
        places = T.bind(prefix_sum(chosen))  # of the chosen, counted from 1
        gaps = subtract_bytes(self.numbers[words(0)], subtract_bytes(places, one))
        T.buffer_store(packed, self.numbers[words(0)], [words(0)])
        T.buffer_store(distances, keep_bytes(chosen, gaps), [words(0)])
        for bit in range(_ROUNDS):
            leaving = T.bind(has_bits(distances[words(0)], 1 << bit))
            moved = T.bind(rotate(distances[words(0)], 1 << bit))
            arriving = T.bind(has_bits(moved, 1 << bit))
            numbers = pick_bytes(arriving, rotate(packed[words(0)], 1 << bit), packed[words(0)])
            left = pick_bytes(arriving, moved, drop_bytes(leaving, distances[words(0)]))
            T.buffer_store(packed, numbers, [words(0)])
            T.buffer_store(distances, left, [words(0)])
        return T.bind(last_byte(places))
