"""Which tiles a search may choose from: the only place that names the candidates.

Vectors are as wide as the target's, so `lanes` is no candidate; nor is what only the GEMV reads.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from itertools import product

from ..attention.tiles import AttentionTile
from ..constants import PAGE_SIZE_TOKENS, QUANT_GROUP, STACK_BYTES
from ..features import CpuFeatures
from ..linear.tiles import LinearTile
from ..spec import SpecError
from .workloads import ListWorkload, Tile, Workload

_GEMM_SIZES: dict[str, tuple[int, ...]] = {
    "token_vectors": (1, 2, 3, 4),
    "outputs": (2, 3, 4, 5, 6, 8, 12),
    "block_panels": (2, 4, 8, 16, 32),
    "task_outputs": (24, 48, 96, 192),
    "block_depth": (128, 192, 256, 512, 1024, 2048),
}

_LIST_SIZES: dict[str, tuple[int, ...]] = {
    "query_vectors": (1, 2, 3, 4, 6),
    "strips": (1, 2, 3, 4, 6, 8),
    "register_rows": (2, 3, 4, 5, 6, 8, 10, 12),
    "key_block": (16, 32, 48, 64, 96, 128),
}

_SPARE_REGISTERS = 2
"""Vector registers that hold no accumulator, at the least."""

_FEWEST_ACCUMULATORS = 8
"""As many hide the latency of the multiply-adds; register tiles with fewer are never best."""

_FLOAT_BYTES = 4

_TASK_BYTES = 512 * 1024
"""A GEMM task's sums, at most: an L2."""


def sizes_on_offer(workload: Workload) -> Mapping[str, tuple[int, ...]]:
    """Candidates of every size that may be chosen, ascending."""
    return _LIST_SIZES if isinstance(workload, ListWorkload) else _GEMM_SIZES


def sizes_of(workload: Workload, tile: Tile) -> dict[str, int]:
    """The sizes of a tile that may be chosen."""
    return {name: int(asdict(tile)[name]) for name in sizes_on_offer(workload)}


def tile_of_sizes(workload: Workload, features: CpuFeatures, sizes: Mapping[str, int]) -> Tile:
    """The tile with these sizes.

    Raises `SpecError` for sizes that aren't exactly those on offer, and for values together that
    the kernels don't take.
    """
    offered = sizes_on_offer(workload)
    base = workload.tile(replace(features, tuned=()))
    if sizes == sizes_of(workload, base):  # the hand-chosen tile needn't be on offer
        return base
    if set(sizes) != set(offered):
        raise SpecError(
            f"{workload.name}: expected sizes {', '.join(offered)}, got {', '.join(sizes)}"
        )
    for name, value in sizes.items():
        if value not in offered[name]:
            raise SpecError(
                f"{workload.name}: {name}: expected one of "
                f"{', '.join(map(str, offered[name]))}, got {value}"
            )
    tile = _resized(base, sizes)
    if not _fits(workload, features, tile):
        raise SpecError(
            f"{workload.name}: expected sizes that suit each other and the vector unit, got "
            f"{', '.join(f'{name} {value}' for name, value in sizes.items())}"
        )
    return tile


def tile_space(workload: Workload, features: CpuFeatures) -> Iterator[Tile]:
    """Every tile on offer; the hand-chosen one comes first."""
    offered = sizes_on_offer(workload)
    base = workload.tile(replace(features, tuned=()))
    yield base
    for values in product(*offered.values()):
        tile = _resized(base, dict(zip(offered, values, strict=True)))
        if tile != base and _fits(workload, features, tile):
            yield tile


def _resized(tile: Tile, sizes: Mapping[str, int]) -> Tile:
    if isinstance(tile, LinearTile):
        return replace(tile, **sizes)
    return replace(tile, **sizes)


def _fits(workload: Workload, features: CpuFeatures, tile: Tile) -> bool:
    if isinstance(tile, LinearTile):
        accumulators = tile.outputs * tile.token_vectors
        fits = (
            tile.task_outputs % tile.outputs == 0
            and tile.task_outputs % tile.lanes == 0
            and tile.block_depth % QUANT_GROUP == 0
            and tile.task_outputs * tile.block_tokens * _FLOAT_BYTES <= _TASK_BYTES
        )
    else:
        assert isinstance(tile, AttentionTile)
        assert isinstance(workload, ListWorkload)
        accumulators = tile.register_rows * tile.query_vectors
        # strips beyond the rows would hold nothing, and so would vectors
        filled = -(-workload.rows // tile.strip_queries)
        fits = (
            tile.strips <= filled
            and (tile.query_vectors - 1) * tile.lanes < workload.rows
            and tile.key_block % PAGE_SIZE_TOKENS == 0
            and accumulators * tile.lanes * _FLOAT_BYTES < STACK_BYTES
        )
    in_registers = (
        _FEWEST_ACCUMULATORS <= accumulators <= features.vector_registers - _SPARE_REGISTERS
    )
    return fits and in_registers
