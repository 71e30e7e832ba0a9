"""Kernels worth tuning, in a shape that stands for many: what a search measures.

A workload knows its name, its arguments and its tile; `definitions` says what it computes, `space`
which tiles there are, `kernels` makes the kernel with a tile.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..attention.tiles import AttentionTile, list_attention_name, list_tile
from ..constants import PAGE_SIZE_TOKENS, QUANT_GROUP, QUANT_PER_WORD
from ..features import CpuFeatures
from ..linear.tiles import LinearTile, gemm_name, linear_tile
from ..spec import AttentionSpec, LinearSpec, SpecError

Tile = AttentionTile | LinearTile

_SCALE = 0.02
"""Scales of random q4f32_1 weights: sums of products of a layer then stay near 1."""


@dataclass(frozen=True)
class GemmWorkload:
    """`tokens` tokens times the weight of a layer.

    Arguments: x (M, K) float32; w (N, K) float32 or, quantized, q_weight (N, K / 8) uint32 and
    q_scale (N, K / 32) float32; y (M, N) float32, written.
    """

    spec: LinearSpec
    tokens: int

    @property
    def name(self) -> str:
        return gemm_name(self.spec)

    def tile(self, features: CpuFeatures) -> LinearTile:
        """The tile that the kernel has with these features."""
        return linear_tile(self.spec, features)

    def arguments(self, rng: np.random.Generator) -> list[NDArray[Any]]:
        """Random arguments."""
        n, k = self.spec.out_features, self.spec.in_features
        x = rng.standard_normal((self.tokens, k), dtype=np.float32)
        y = np.zeros((self.tokens, n), np.float32)
        if self.spec.quantization == "q0f32":
            return [x, rng.standard_normal((n, k), dtype=np.float32), y]
        words = rng.integers(0, 2**32, (n, k // QUANT_PER_WORD), dtype=np.uint32)
        scales = rng.random((n, k // QUANT_GROUP), dtype=np.float32) * np.float32(_SCALE)
        return [x, words, scales, y]


@dataclass(frozen=True)
class ListWorkload:
    """Exact attention of rows to lists of keys that they share, one list after the other.

    Arguments: q (lists * block_queries, heads, D) float32; pages (keys / 16 * 32, D) float32, the
    keys and values of one KV head: of 32 rows, 16 keys and their values; indices (lists, kept)
    int32; output like q, written; lse (lists * block_queries, heads) float32, base 2, written.

    Attributes
    ----------
    head_dim : D.
    heads, block_queries : query heads, and consecutive queries of each, that share a list.
    keys : past keys; a multiple of the page size.
    kept : keys of a list.
    lists : lists, as many blocks of queries in a row.
    """

    head_dim: int
    heads: int
    block_queries: int
    keys: int
    kept: int
    lists: int

    def __post_init__(self) -> None:
        if self.keys % PAGE_SIZE_TOKENS != 0 or not 0 < self.kept <= self.keys:
            raise SpecError(
                f"expected whole pages of {PAGE_SIZE_TOKENS} keys and lists of some of them, got "
                f"{self.keys} keys and lists of {self.kept}"
            )

    @property
    def rows(self) -> int:
        """Rows of a list."""
        return self.heads * self.block_queries

    @property
    def name(self) -> str:
        return list_attention_name(self.head_dim, self.rows)

    @property
    def attention(self) -> AttentionSpec:
        """The geometry of the one KV head."""
        return AttentionSpec(self.heads, 1, self.head_dim, self.head_dim**-0.5)

    def tile(self, features: CpuFeatures) -> AttentionTile:
        """The tile that the kernel has with these features."""
        return list_tile(features, self.rows, self.head_dim)

    def arguments(self, rng: np.random.Generator) -> list[NDArray[Any]]:
        """Random arguments; every list ascends and names keys that are there, as top-k's do."""
        rows = (self.lists * self.block_queries, self.heads)
        q = rng.standard_normal((*rows, self.head_dim), dtype=np.float32)
        pages = rng.standard_normal((2 * self.keys, self.head_dim), dtype=np.float32)
        indices = np.stack(
            [np.sort(rng.permutation(self.keys)[: self.kept]) for _ in range(self.lists)]
        ).astype(np.int32)
        return [q, pages, indices, np.zeros_like(q), np.zeros(rows, np.float32)]


Workload = GemmWorkload | ListWorkload
