"""The shapes of one pilot graph, which are static, and what it computes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from ..spec import PilotSpec, SpecError, query_strides
from .hvx import WORDS
from .score_tile import GROUP, QUERIES, TILE_KEYS

ScoreDtype = Literal["int8", "int16", "int32"]

_SCORE_DTYPES: dict[int, ScoreDtype] = {8: "int8", 9: "int16", 32: "int32"}

MAX_KEYS = 1 << 15
"""Sums of weights, below 2^15 each, then fit 30 bits: the inverse takes a bit more."""


@dataclass(frozen=True)
class SelectionSpec:
    """Lists of keys, made on the DSP.

    Attributes
    ----------
    capacity : keys that a list has room for, a multiple of 32.
    k_min : keys that every list keeps if there are as many.
    """

    capacity: int
    k_min: int

    def __post_init__(self) -> None:
        if self.capacity < 1 or self.capacity % WORDS:
            raise SpecError(f"expected room for a multiple of {WORDS} keys, got {self.capacity}")
        if self.k_min < 0:
            raise SpecError(f"expected k_min to be 0 or more, got {self.k_min}")


@dataclass(frozen=True)
class PilotGraphSpec:
    """One graph. A unit has lists of its own: a query head, or the heads of a GQA group that share
    theirs.

    Attributes
    ----------
    units : of one launch, each with the keys of its KV head.
    heads : query heads of a unit.
    queries : rows of each head, M; a launch may fill fewer.
    keys : N; a launch may fill fewer.
    head_dim : D.
    pilot : what the plan says. Pooled, a graph ends in importances; otherwise in scores.
    query_stride : of the units' heads; a graph is given just the rows that vote.
    selection : where given, it ends in lists of the keys that have the largest of these.
    """

    units: int
    heads: int
    queries: int
    keys: int
    head_dim: int
    pilot: PilotSpec
    query_stride: int = 1
    selection: SelectionSpec | None = None

    def __post_init__(self) -> None:
        if self.units < 1 or self.heads < 1:
            raise SpecError(
                f"expected at least one unit of one head, got {self.units} of {self.heads}"
            )
        if self.query_stride not in query_strides(self.pilot.query_block):
            raise SpecError(
                f"expected a query stride that blocks of {self.pilot.query_block} queries allow, "
                f"got {self.query_stride}"
            )
        multiple = max(QUERIES, self.list_rows)
        if self.queries < 1 or self.queries % multiple:
            raise SpecError(f"expected queries to be a multiple of {multiple}, got {self.queries}")
        if not 0 < self.keys <= MAX_KEYS or self.keys % TILE_KEYS:
            raise SpecError(
                f"expected keys to be a multiple of {TILE_KEYS} up to {MAX_KEYS}, got {self.keys}"
            )
        if self.head_dim < 1 or self.head_dim % 16:
            raise SpecError(f"expected a head dim that is a multiple of 16, got {self.head_dim}")
        if self.selection is not None and self.selection.capacity > self.keys:
            raise SpecError(
                f"expected lists of at most {self.keys} keys, got room for "
                f"{self.selection.capacity}"
            )

    @property
    def all_heads(self) -> int:
        """Query heads of all units."""
        return self.units * self.heads

    @property
    def list_rows(self) -> int:
        """Rows of a head that vote on one list."""
        return self.pilot.query_block // self.query_stride

    @property
    def lists(self) -> int:
        """Rows of importances of a unit: blocks of queries."""
        return self.queries // self.list_rows

    @property
    def score_dtype(self) -> ScoreDtype:
        """Of a graph that ends in scores."""
        return _SCORE_DTYPES[self.pilot.score_bits]

    @property
    def ranked_shape(self) -> tuple[int, ...]:
        """Of importances, or of scores: rows of N."""
        rows = (self.lists,) if self.pilot.pooled else (self.heads, self.queries)
        return (self.units, *rows, self.keys)

    @property
    def ranked_dtype(self) -> ScoreDtype:
        """Of importances, or of scores."""
        return "int32" if self.pilot.pooled else self.score_dtype

    @property
    def all_lists(self) -> int:
        """Rows of importances, or of scores, of all units: lists that can be made."""
        return math.prod(self.ranked_shape[:-1])

    @property
    def list_words(self) -> int:
        """int32 words that all lists and their counts take."""
        assert self.selection is not None
        return self.all_lists * (self.selection.capacity + 1)

    @property
    def packed_shape(self) -> tuple[int, int, int]:
        """Packed keys of all units, int32."""
        return (self.units * self.keys // WORDS, self.head_dim // GROUP, WORDS)

    @property
    def scratch_shape(self) -> tuple[int, int]:
        """Scores, or weights, of the rows of a register tile, halfwords in int32 words."""
        return (QUERIES, self.keys // 2)
