"""Which tile to measure next: the hand-chosen one, some at random, then neighbours of the best.

The spaces have some hundreds of tiles in no more than five sizes, each measured in about four
seconds, most of them building: too few and too dear for a model of costs to learn from.
"""

from __future__ import annotations

import random

from tir_kernels.features import CpuFeatures
from tir_kernels.tuning.space import sizes_of, sizes_on_offer, tile_space
from tir_kernels.tuning.workloads import Tile, Workload

_RANDOM_PART = 0.5
"""Of all trials."""


class Search:
    """The search of one workload: `ask` for tiles, `tell` how long they take. No tile twice."""

    def __init__(self, workload: Workload, features: CpuFeatures, trials: int, seed: int) -> None:
        self._workload = workload
        hand, *others = tile_space(workload, features)
        random.Random(seed).shuffle(others)
        self._waiting = [hand, *others]
        self._trials = min(trials, len(self._waiting))
        self._asked = 0
        self._seconds: dict[Tile, float] = {}

    @property
    def trials(self) -> int:
        """Tiles to be measured: as many as wanted, or all there are."""
        return self._trials

    def ask(self, count: int) -> list[Tile]:
        """At most `count` tiles to measure next; none when done."""
        chosen: list[Tile] = []
        for _ in range(min(count, self._trials - self._asked)):
            tile = self._next()
            self._waiting.remove(tile)
            self._asked += 1
            chosen.append(tile)
        return chosen

    def tell(self, tile: Tile, seconds: float) -> None:
        """How long a tile takes. Those that fail aren't told."""
        self._seconds[tile] = seconds

    def best(self, count: int) -> list[Tile]:
        """The fastest tiles, fastest first."""
        return sorted(self._seconds, key=lambda tile: self._seconds[tile])[:count]

    def _next(self) -> Tile:
        """A neighbour of the best tile that has one, once some were tried at random."""
        if self._asked >= self._trials * _RANDOM_PART:
            for tile in self.best(len(self._seconds)):
                for other in self._waiting:
                    if self._neighbours(tile, other):
                        return other
        return self._waiting[0]

    def _neighbours(self, a: Tile, b: Tile) -> bool:
        """Whether the tiles differ in one size, by one step."""
        first, second = sizes_of(self._workload, a), sizes_of(self._workload, b)
        differing = [name for name in first if first[name] != second[name]]
        if len(differing) != 1:
            return False
        (name,) = differing
        steps = sorted({*sizes_on_offer(self._workload)[name], first[name], second[name]})
        return abs(steps.index(first[name]) - steps.index(second[name])) == 1
