"""Keys from rows to the layout of `vrmpy`, on the DSP: once a launch, for all its queries.

Packing transposes words: 32 keys of D / 4 words become D / 4 vectors of 32 words. Where D is a
power of two, five rounds of `vshuff` do that in registers. A round interleaves two vectors' words,
which rotates the bits of a word's address by one: the bit that tells the two vectors apart becomes
the lowest bit of the lane, and the highest bit of the lane tells the vectors apart. Five rounds
bring the five bits of a key's number into the lanes, the highest first.
"""

from __future__ import annotations

from tvm import tirx
from tvm.script import tirx as T

from ..simd.vector import Expr
from .graph_spec import PilotGraphSpec
from .hvx import WORDS, interleave, splat_word, words
from .score_tile import GROUP, KEY_BIAS, TILE_KEYS

_KEY_BITS = 5
_LANE_BITS = 5
_BIASES = KEY_BIAS * 0x01010101 - (1 << 32)
"""What turns the top bit of every byte of a word: it adds the bias."""


def pack_keys(spec: PilotGraphSpec) -> tirx.PrimFunc:
    """The first stage of a graph.

    Variables: `keys` (units, N, D) int8; `lengths` (2,) int32, the second of which is how many keys
    count; output `packed` (units * N / 32, D / 4, 32) int32, byte `e` of word [b, s, i] being
    element 4 s + e of key 32 b + i, plus 128. Tiles of 128 keys beyond the length are left alone.
    """
    unit_blocks, num_words = spec.keys // WORDS, spec.head_dim // GROUP
    rounds = _rounds(num_words)

    @T.prim_func(s_tir=True)
    def shadowattn_pack_keys(
        var_keys: T.handle, var_lengths: T.handle, var_packed: T.handle
    ) -> None:
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
        keys = T.match_buffer(var_keys, (spec.units, spec.keys, spec.head_dim), "int8")
        lengths = T.match_buffer(var_lengths, (2,), "int32")
        packed = T.match_buffer(var_packed, spec.packed_shape, "int32")
        rows = T.decl_buffer((spec.units * unit_blocks, num_words * WORDS), "int32", data=keys.data)
        for unit in range(spec.units):
            for i in range(T.ceildiv(lengths[1], TILE_KEYS) * (TILE_KEYS // WORDS)):
                block = T.bind(unit * unit_blocks + i)
                if rounds is None:
                    for step in range(num_words):
                        for key in range(WORDS):
                            packed[block, step, key] = rows[
                                block, key * num_words + step
                            ] ^ T.int32(_BIASES)
                else:
                    _shuffle_block(rows, packed, block, rounds)

    return shadowattn_pack_keys


class _Rounds:
    """How the vectors of a block are paired, round by round, and which four dimensions each of them
    ends with."""

    def __init__(self, num_words: int) -> None:
        dim_bits = num_words.bit_length() - 1
        labels = [f"d{i}" for i in range(dim_bits)] + [f"k{i}" for i in range(_KEY_BITS)]
        lane, vector = labels[:_LANE_BITS], labels[_LANE_BITS:]
        self.num_vectors = num_words
        self.distances: list[int] = []
        for key_bit in reversed(range(_KEY_BITS)):
            place = vector.index(f"k{key_bit}")
            self.distances.append(1 << place)
            vector[place] = lane.pop()
            lane.insert(0, f"k{key_bit}")
        self.places = [int(label[1:]) for label in vector]

    def step(self, vector: int) -> int:
        """Which D / 4 a vector holds in the end."""
        return sum((vector >> i & 1) << place for i, place in enumerate(self.places))


def _rounds(num_words: int) -> _Rounds | None:
    """None where words would not stay in vectors."""
    return _Rounds(num_words) if num_words & (num_words - 1) == 0 else None


def _shuffle_block(rows: T.Buffer, packed: T.Buffer, block: Expr, rounds: _Rounds) -> None:
    """Plain Python: emits all rounds, unrolled."""
    biases = T.bind(splat_word(T.int32(_BIASES)))
    vectors = [T.bind(rows[block, words(v)] ^ biases) for v in range(rounds.num_vectors)]
    for distance in rounds.distances:
        for v in range(rounds.num_vectors):
            if not v & distance:
                low, high = interleave(vectors[v], vectors[v + distance], 4)
                vectors[v], vectors[v + distance] = T.bind(low), T.bind(high)
    for v, vector in enumerate(vectors):
        T.buffer_store(packed, vector, [block, rounds.step(v), words(0)])
