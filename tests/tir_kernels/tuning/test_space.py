"""The spaces: what is on offer is what the kernels take, and nothing else is let in."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tir_kernels.attention.tiles import AttentionTile
from tir_kernels.constants import PAGE_SIZE_TOKENS, QUANT_GROUP
from tir_kernels.features import AVX2, AVX512, GENERIC, NEON, CpuFeatures, TunedTile
from tir_kernels.linear.tiles import LinearTile
from tir_kernels.spec import LinearSpec, SpecError
from tir_kernels.tuning.space import sizes_of, sizes_on_offer, tile_of_sizes, tile_space
from tir_kernels.tuning.workloads import GemmWorkload, ListWorkload, Workload

from .small_workloads import GEMM, LISTS, WORKLOADS

every_unit = pytest.mark.parametrize("features", [GENERIC, AVX2, AVX512, NEON], ids=lambda f: f.isa)
every_workload = pytest.mark.parametrize("workload", WORKLOADS, ids=lambda w: w.name)

STACK_BYTES = 1024


@every_unit
@every_workload
def test_tiles_are_what_the_kernels_ask_for(workload: Workload, features: CpuFeatures) -> None:
    tiles = list(tile_space(workload, features))
    assert tiles[0] == workload.tile(features), "the hand-chosen tile comes first"
    assert len(set(tiles)) == len(tiles) > 10
    for tile in tiles:
        assert tile.lanes == features.lanes
        if isinstance(tile, LinearTile):
            accumulators = tile.outputs * tile.token_vectors
            assert tile.task_outputs % tile.outputs == tile.task_outputs % tile.lanes == 0
            assert tile.block_depth % QUANT_GROUP == 0
        else:
            accumulators = tile.register_rows * tile.query_vectors
            assert 4 * accumulators * tile.lanes < STACK_BYTES
            assert tile.key_block % PAGE_SIZE_TOKENS == 0
        assert accumulators < features.vector_registers


@every_unit
@pytest.mark.parametrize("block_queries", [8, 16, 32, 64, 128])
def test_lists_fill_their_tiles(block_queries: int, features: CpuFeatures) -> None:
    workload = replace(LISTS, block_queries=block_queries)
    for tile in list(tile_space(workload, features))[1:]:
        assert isinstance(tile, AttentionTile)
        assert (tile.strips - 1) * tile.strip_queries < workload.rows, "no strip is empty"


@every_unit
@every_workload
def test_sizes_make_the_tile_again(workload: Workload, features: CpuFeatures) -> None:
    for tile in tile_space(workload, features):
        assert tile_of_sizes(workload, features, sizes_of(workload, tile)) == tile


@every_workload
def test_tuned_sizes_make_the_kernels_tile(workload: Workload) -> None:
    *_, tile = tile_space(workload, AVX2)
    tuned = TunedTile(workload.name, tuple(sizes_of(workload, tile).items()))
    assert tile != workload.tile(AVX2)
    assert workload.tile(replace(AVX2, tuned=(tuned,))) == tile
    assert next(tile_space(workload, replace(AVX2, tuned=(tuned,)))) == workload.tile(AVX2)
    other = TunedTile("another kernel", tuned.sizes)
    assert workload.tile(replace(AVX2, tuned=(other,))) == workload.tile(AVX2)


@pytest.mark.parametrize(
    ("workload", "changes", "message"),
    [
        (GEMM, {"outputs": 0}, "outputs: expected one of 2, 3"),
        (GEMM, {"outputs": -6}, "outputs: expected one of"),
        (GEMM, {"block_depth": 10**9}, "block_depth: expected one of"),
        (GEMM, {"outputs": 12, "token_vectors": 4}, "suit each other"),  # 48 accumulators
        (GEMM, {"outputs": 5, "task_outputs": 48}, "suit each other"),
        (GEMM, {"gemv_outputs": 4}, "expected sizes token_vectors, outputs"),
        (LISTS, {"key_block": 17}, "key_block: expected one of 16, 32"),
        (LISTS, {"register_rows": 12, "query_vectors": 6}, "suit each other"),
        (LISTS, {"strips": 8, "query_vectors": 3}, "suit each other"),  # rows for one strip only
        (LISTS, {"lanes": 64}, "expected sizes query_vectors, strips"),
    ],
)
def test_other_sizes_are_refused(workload: Workload, changes: dict[str, int], message: str) -> None:
    sizes = {**sizes_of(workload, workload.tile(AVX2)), **changes}
    with pytest.raises(SpecError, match=message):
        tile_of_sizes(workload, AVX2, sizes)


def test_missing_sizes_are_refused() -> None:
    sizes = sizes_of(GEMM, GEMM.tile(AVX2))
    del sizes["outputs"]
    with pytest.raises(SpecError, match="expected sizes token_vectors, outputs"):
        tile_of_sizes(GEMM, AVX2, sizes)


def test_every_size_is_of_the_tile() -> None:
    for workload in WORKLOADS:
        assert set(sizes_on_offer(workload)) <= set(vars(workload.tile(AVX2)))


def test_names_tell_shapes_apart() -> None:
    names = {
        GemmWorkload(LinearSpec(96, 64), 8).name,
        GemmWorkload(LinearSpec(64, 96), 8).name,
        GemmWorkload(LinearSpec(64, 96, "q4f32_1"), 8).name,
        replace(LISTS, block_queries=16).name,
        replace(LISTS, head_dim=64).name,
    }
    assert len(names) == 5


@pytest.mark.parametrize("keys", [{"keys": 63}, {"kept": 65}, {"kept": 0}])
def test_lists_are_of_keys_that_are_there(keys: dict[str, int]) -> None:
    with pytest.raises(SpecError, match="expected whole pages"):
        ListWorkload(**{**vars(LISTS), **keys})
