"""HVX instructions of 128-byte vectors, as expressions: what the kernels use, and no more.

A vector is always typed `int32x32` here, whatever it holds: 32 words, 64 halfwords or 128 bytes;
a pair of vectors is `int32x64`; a predicate has a bit for each of 128 bytes. All instructions are
in v66 and in every later version alike.
The pipes that bound a kernel: a packet has at most two multiplies (`vrmpy`, `multiply_*`), one
shift, two permutes (pairs take both), one vector load and one store.
"""

from __future__ import annotations

from tvm.script import tirx as T

from ..simd.vector import Expr

VECTOR_BYTES = 128
"""Of the only vector length that v66 and later have in common; buffers are aligned to it."""

WORDS = VECTOR_BYTES // 4
HALVES = VECTOR_BYTES // 2

VRMPY_PER_PACKET = 2
"""Multiply pipes of the vector unit: the issue bound of `vrmpy`."""

VECTOR = f"int32x{WORDS}"
PAIR = f"int32x{2 * WORDS}"
PREDICATE = f"boolx{VECTOR_BYTES}"

_ELEMENTS = {1: "b", 2: "h", 4: "w"}
"""By bytes of an element."""


def _hvx(dtype: str, name: str, *operands: Expr) -> Expr:
    return T.call_llvm_pure_intrin(dtype, f"llvm.hexagon.V6.{name}.128B", *operands)


def words(index: Expr) -> Expr:
    """The positions of the `index`-th vector in a row of words."""
    return T.ramp(index * WORDS, 1, WORDS)


def vrmpy(sums: Expr, keys: Expr, query: Expr) -> Expr:
    """sums.w + the four products of each word of keys with `query`, an int32 scalar: unsigned bytes
    by signed ones.

    Two of these fit a packet in every version. The form of two vectors of signed bytes takes both
    pipes in v66 and v68, and a query would have to be splat, which takes one more.
    """
    return _hvx(VECTOR, "vrmpybus.acc", sums, keys, query)


def splat_word(value: Expr) -> Expr:
    """An int32 scalar in every word."""
    return _hvx(VECTOR, "lvsplatw", value)


def shift_words(x: Expr, shift: Expr) -> Expr:
    """x.w >> shift, arithmetic; shift an int32 scalar below 32."""
    return _hvx(VECTOR, "vasrw", x, shift)


def add_shifted_words(sums: Expr, x: Expr, shift: Expr) -> Expr:
    """sums.w + (x.w >> shift)."""
    return _hvx(VECTOR, "vasrw.acc", sums, x, shift)


def pack_words(low: Expr, high: Expr) -> Expr:
    """Words of two vectors as the halfwords of one, in their order, saturated."""
    return _hvx(VECTOR, "vpackwh.sat", high, low)


def pack_bytes(low: Expr, high: Expr) -> Expr:
    """Halfwords of two vectors as the signed bytes of one, in their order, saturated."""
    return _hvx(VECTOR, "vpackhb.sat", high, low)


def multiply_halves_by_scalar(x: Expr, pair: Expr) -> Expr:
    """(x.h * pair.h + 2^14) >> 15, saturated; `pair` the factor in both halves of an int32."""
    return _hvx(VECTOR, "vmpyhsrs", x, pair)


def multiply_halves(x: Expr, y: Expr) -> Expr:
    """(x.h * y.h + 2^14) >> 15, saturated."""
    return _hvx(VECTOR, "vmpyhvsrs", x, y)


def widening_products(x: Expr, pair: Expr) -> tuple[Expr, Expr]:
    """x.h * pair.h as words: those of even halfwords, those of odd ones."""
    products = T.bind(_hvx(PAIR, "vmpyh", x, pair))
    return low(products), high(products)


def add_half_pairs(sums: Expr, x: Expr) -> Expr:
    """sums.w + the two halfwords of each word of x."""
    return _hvx(VECTOR, "vdmpyhb.acc", sums, x, T.int32(0x01010101))


def max_halves(x: Expr, y: Expr) -> Expr:
    return _hvx(VECTOR, "vmaxh", x, y)


def min_halves(x: Expr, y: Expr) -> Expr:
    return _hvx(VECTOR, "vminh", x, y)


def subtract_halves(x: Expr, y: Expr) -> Expr:
    return _hvx(VECTOR, "vsubh", x, y)


def saturate_to_bytes(low: Expr, high: Expr) -> Expr:
    """Halfwords as bytes 0..255, those of `low` the even bytes, those of `high` the odd ones."""
    return _hvx(VECTOR, "vsathub", high, low)


def shift_halves_right(x: Expr, shift: Expr) -> Expr:
    """x.h >> shift, logical."""
    return _hvx(VECTOR, "vlsrh", x, shift)


def look_up(indices: Expr, table: Expr) -> tuple[Expr, Expr]:
    """`table` (16 words whose low halves are the entries) at the low 4 bits of every byte: the
    halfwords of even bytes, those of odd ones."""
    found = T.bind(_hvx(PAIR, "vlutvwh.nm", indices, table, T.int32(0)))
    return low(found), high(found)


def interleave(even: Expr, odd: Expr, element_bytes: int) -> tuple[Expr, Expr]:
    """Elements of two vectors taken in turn: the first vector of the result, the second."""
    pair = T.bind(_hvx(PAIR, "vshuffvdd", odd, even, T.int32(-element_bytes)))
    return low(pair), high(pair)


def is_greater(x: Expr, y: Expr, element_bytes: int) -> Expr:
    """x > y, signed: a predicate whose bits are alike within an element."""
    return _hvx(PREDICATE, f"vgt{_ELEMENTS[element_bytes]}", x, y)


def is_equal(x: Expr, y: Expr, element_bytes: int) -> Expr:
    """x == y, as `is_greater`."""
    return _hvx(PREDICATE, f"veq{_ELEMENTS[element_bytes]}", x, y)


def is_greater_unsigned_byte(x: Expr, y: Expr) -> Expr:
    """x.ub > y.ub."""
    return _hvx(PREDICATE, "vgtub", x, y)


def has_bits(x: Expr, bits: int) -> Expr:
    """Whether a byte of x has any of `bits`."""
    return _hvx(PREDICATE, "vandvrt", x, T.int32(in_every_byte(bits)))


def as_bytes(predicate: Expr) -> Expr:
    """1 in every byte whose bit is set, else 0."""
    return _hvx(VECTOR, "vandqrt", predicate, T.int32(in_every_byte(1)))


def in_every_byte(value: int) -> int:
    """A byte four times, as a signed word."""
    word = value * 0x01010101
    return word - (1 << 32) if word >> 31 else word


def pick_bytes(predicate: Expr, x: Expr, y: Expr) -> Expr:
    """Bytes of x where the predicate says so, else of y."""
    return _hvx(VECTOR, "vmux", predicate, x, y)


def keep_bytes(predicate: Expr, x: Expr) -> Expr:
    """Bytes of x where the predicate says so, else 0."""
    return _hvx(VECTOR, "vandvqv", predicate, x)


def drop_bytes(predicate: Expr, x: Expr) -> Expr:
    """0 where the predicate says so, else bytes of x."""
    return _hvx(VECTOR, "vandvnqv", predicate, x)


def prefix_sum(predicate: Expr) -> Expr:
    """In every byte, how many bits are set up to it and in it: 0 to 128, unsigned."""
    return _hvx(VECTOR, "vprefixqb", predicate)


def add_bytes(sums: Expr, x: Expr) -> Expr:
    """sums.uw + the four unsigned bytes of each word of x."""
    return _hvx(VECTOR, "vrmpyub.acc", sums, x, T.int32(in_every_byte(1)))


def subtract_bytes(x: Expr, y: Expr) -> Expr:
    return _hvx(VECTOR, "vsubb", x, y)


def even_bytes(low: Expr, high: Expr) -> Expr:
    """The lower byte of every halfword of two vectors, in their order."""
    return _hvx(VECTOR, "vpackeb", high, low)


def even_halves(low: Expr, high: Expr) -> Expr:
    """The lower halfword of every word of two vectors, in their order."""
    return _hvx(VECTOR, "vpackeh", high, low)


def widen_bytes(x: Expr) -> list[Expr]:
    """Unsigned bytes as words, four vectors, in order."""
    halves = T.bind(_hvx(PAIR, "vunpackub", x))
    vectors = []
    for half in (low(halves), high(halves)):
        pair = T.bind(_hvx(PAIR, "vunpackuh", half))
        vectors += [low(pair), high(pair)]
    return vectors


def low(pair: Expr) -> Expr:
    """The first vector of a pair."""
    return _hvx(VECTOR, "lo", pair)


def high(pair: Expr) -> Expr:
    """The second vector of a pair."""
    return _hvx(VECTOR, "hi", pair)


def rotate(x: Expr, distance_bytes: int) -> Expr:
    """Bytes moved down by `distance_bytes`, around the end."""
    return _hvx(VECTOR, "vror", x, T.int32(distance_bytes))


def first_word(x: Expr) -> Expr:
    """Word 0, an int32 scalar."""
    return _hvx("int32", "extractw", x, T.int32(0))


def last_byte(x: Expr) -> Expr:
    """Byte 127, unsigned, an int32 scalar."""
    word = _hvx("int32", "extractw", x, T.int32(VECTOR_BYTES - 4))
    return T.bitwise_and(T.shift_right(word, 24), T.int32(0xFF))


def max_of_halves(x: Expr) -> Expr:
    """The largest halfword, in every halfword."""
    distance = VECTOR_BYTES // 2
    while distance >= 2:
        x = T.bind(x)
        x = max_halves(x, rotate(x, distance))
        distance //= 2
    return x


def sum_of_words(x: Expr) -> Expr:
    """The sum of all words, an int32 scalar."""
    distance = VECTOR_BYTES // 2
    while distance >= 4:
        x = T.bind(x)
        x = x + rotate(x, distance)
        distance //= 2
    return first_word(T.bind(x))
