"""The search: the hand-chosen tile first, none twice, and towards the best."""

from __future__ import annotations

import pytest

from shadowattn_tvm.tune.search import Search
from tests.tir_kernels.tuning.small_workloads import GEMM, LISTS
from tir_kernels.features import AVX2
from tir_kernels.tuning.space import sizes_of, tile_space
from tir_kernels.tuning.workloads import Tile


def run_search(trials: int, seed: int, batch: int = 4) -> list[Tile]:
    """Every tile in its order; those with a larger block of depth are faster."""
    search = Search(GEMM, AVX2, trials, seed)
    order: list[Tile] = []
    while tiles := search.ask(batch):
        assert len(tiles) <= batch
        for tile in tiles:
            search.tell(tile, 1.0 / sizes_of(GEMM, tile)["block_depth"])
        order += tiles
    return order


@pytest.mark.parametrize("trials", [1, 2, 5, 32])
def test_as_many_tiles_as_wanted_and_none_twice(trials: int) -> None:
    order = run_search(trials, seed=1)
    assert len(order) == len(set(order)) == trials
    assert order[0] == GEMM.tile(AVX2)


def test_a_space_may_be_smaller() -> None:
    space = list(tile_space(LISTS, AVX2))
    search = Search(LISTS, AVX2, 10_000, 0)
    assert search.trials == len(space)
    tiles = search.ask(10_000)
    assert set(tiles) == set(space)
    assert search.ask(1) == []


def test_the_seed_decides() -> None:
    assert run_search(12, seed=5) == run_search(12, seed=5)
    assert run_search(12, seed=5) != run_search(12, seed=6)


def test_later_tiles_are_neighbours_of_the_best() -> None:
    order = run_search(40, seed=2, batch=1)
    depths = [sizes_of(GEMM, tile)["block_depth"] for tile in order]
    assert sum(depths[20:]) > sum(depths[:20])
    best = {tuple(sizes_of(GEMM, tile).values()) for tile in order[:-1]}
    last = tuple(sizes_of(GEMM, order[-1]).values())
    assert any(sum(a != b for a, b in zip(last, each, strict=True)) == 1 for each in best)


def test_tiles_that_fail_are_never_best() -> None:
    search = Search(GEMM, AVX2, 4, 0)
    first, second, *_ = search.ask(4)
    search.tell(second, 2.0)
    assert search.best(3) == [second]
    search.tell(first, 1.0)
    assert search.best(1) == [first]
