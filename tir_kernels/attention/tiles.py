"""Tile sizes of the attention kernels, per vector unit: the only place that names them.

Contents
- `AttentionTile`, `attention_tile`: prefill, many queries of one head.
- `list_tile`: the same for the rows that share a list.
- `DecodeTile`, `decode_tile`: decode, one query of each head that shares a KV head.

The prefill microkernels hold `register_rows x query_vectors` accumulators: a row is a key (scores)
or a head dimension (output), its lanes are queries. An accumulator buffer must stay within 1,024
bytes, or TVM moves it from the stack, where LLVM turns it into registers, to the heap.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..features import CpuFeatures, Isa
from ..spec import AttentionSpec


@dataclass(frozen=True)
class AttentionTile:
    """How one query tile meets one block of keys.

    Attributes
    ----------
    lanes : float32 lanes of a vector.
    query_vectors : vectors of queries in a strip; a strip is what one register tile covers.
    strips : strips in a query tile; they share a block of keys while it is in cache.
    register_rows : keys, or head dimensions, of a register tile.
    key_block : keys per step of the online softmax; a multiple of the page size.
    """

    lanes: int
    query_vectors: int
    strips: int
    register_rows: int
    key_block: int

    @property
    def strip_queries(self) -> int:
        """Queries of one strip."""
        return self.lanes * self.query_vectors

    @property
    def queries(self) -> int:
        """Queries of the whole tile."""
        return self.strip_queries * self.strips

    @property
    def padded_key_block(self) -> int:
        """`key_block` rounded up to whole register tiles: the size of a row table."""
        return -(-self.key_block // self.register_rows) * self.register_rows


# 16 registers hold 2 x 6 accumulators, 2 query vectors, a broadcast and one to spare (3 x 4 leave
# none, and LLVM then spills in the loop); 32 registers hold twice that. Every target's strips add
# up to 48 queries, so that work splits alike everywhere. 48 keys are three pages, and their scores
# and values stay in a 32 KiB L1.
_TILES: dict[Isa, AttentionTile] = {
    "generic": AttentionTile(lanes=4, query_vectors=2, strips=6, register_rows=6, key_block=48),
    "avx2": AttentionTile(lanes=8, query_vectors=2, strips=3, register_rows=6, key_block=48),
    "avx512": AttentionTile(lanes=16, query_vectors=3, strips=1, register_rows=4, key_block=48),
    "neon": AttentionTile(lanes=4, query_vectors=4, strips=3, register_rows=6, key_block=48),
}


def attention_tile(features: CpuFeatures) -> AttentionTile:
    """The tile sizes for a vector unit."""
    return _TILES[features.isa]


def list_attention_name(head_dim: int, rows: int) -> str:
    """What tuned tiles call the attention of `rows` rows to a list they share."""
    return f"list_attention_{head_dim}_{rows}"


def list_tile(features: CpuFeatures, rows: int, head_dim: int) -> AttentionTile:
    """The tile sizes for lists that `rows` rows share: the tuned ones, or as many accumulators as
    in the vector unit's tile, in the shape that leaves the fewest lanes without a row, and no more
    strips than the rows fill."""
    return replace(
        _hand_chosen_list_tile(features, rows),
        **features.tuned_sizes(list_attention_name(head_dim, rows)),
    )


def _hand_chosen_list_tile(features: CpuFeatures, rows: int) -> AttentionTile:
    base = attention_tile(features)
    widths = range(base.query_vectors, 0, -1)
    vectors = min(widths, key=lambda width: -rows % (width * base.lanes))
    strips = -(-rows // (vectors * base.lanes))
    tiles = -(-strips // max(1, base.queries // (vectors * base.lanes)))
    return replace(
        base,
        query_vectors=vectors,
        strips=-(-strips // tiles),
        register_rows=base.register_rows * base.query_vectors // vectors,
    )


@dataclass(frozen=True)
class DecodeTile:
    """How the query heads of one KV head meet one split of keys.

    Attributes
    ----------
    lanes : float32 lanes of a vector; divides 16, so it divides the head dim.
    heads : query heads that pass over the keys together; divides the group.
    score_keys : keys whose scores build up together: score_keys * heads accumulators.
    value_vectors : vectors of the output that build up together: heads * value_vectors
        accumulators; divides head_dim / lanes.
    split_keys : keys of one task, so that few heads still occupy many threads; a multiple of
        score_keys, lanes and the page size.
    ahead_keys : how far ahead of its use a key is prefetched.
    """

    lanes: int
    heads: int
    score_keys: int
    value_vectors: int
    split_keys: int
    ahead_keys: int

    @property
    def row_table(self) -> int:
        """Entries of a row table: a split, and what is prefetched beyond it."""
        return self.split_keys + self.ahead_keys


_DECODE_ACCUMULATORS = 12  # leaves 4 of 16 registers for operands
_DECODE_MAX_HEADS = 8  # as many accumulators hide the latency of the multiply-adds
_DECODE_SPLIT_KEYS = 256  # 128 KiB of K and V at D = 64: some 10 us of work, enough to hand out
_DECODE_AHEAD_KEYS = 16  # a page: hardware prefetchers stop where it ends


def decode_tile(spec: AttentionSpec, features: CpuFeatures) -> DecodeTile:
    """The tile sizes for a vector unit and a geometry."""
    heads = _largest_divisor(spec.group_size, _DECODE_MAX_HEADS)
    per_head = _DECODE_ACCUMULATORS // heads
    return DecodeTile(
        lanes=features.lanes,
        heads=heads,
        score_keys=_largest_divisor(_DECODE_SPLIT_KEYS, per_head),
        value_vectors=_largest_divisor(spec.head_dim // features.lanes, per_head),
        split_keys=_DECODE_SPLIT_KEYS,
        ahead_keys=_DECODE_AHEAD_KEYS,
    )


def _largest_divisor(number: int, limit: int) -> int:
    """The largest divisor of `number` that is at most `limit`."""
    return max(d for d in range(1, limit + 1) if number % d == 0)
