"""Tile sizes of the attention kernels, per vector unit: the only place that names them.

The prefill microkernels hold `register_rows x query_vectors` accumulators: a row is a key (scores)
or a head dimension (output), its lanes are queries. An accumulator buffer must stay within 1,024
bytes, or TVM moves it from the stack, where LLVM turns it into registers, to the heap.
"""

from __future__ import annotations

from dataclasses import dataclass

from .features import CpuFeatures, Isa


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
