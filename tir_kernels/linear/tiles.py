"""Tile sizes of the linear-layer kernels, per vector unit: the only place that names them.

The GEMM's microkernel holds `outputs x token_vectors` accumulators: a row is an output feature, its
lanes are tokens (see `accumulators`).
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from ..features import CpuFeatures, Isa
from ..spec import LinearSpec


@dataclass(frozen=True)
class LinearTile:
    """How tokens meet output features.

    Attributes
    ----------
    lanes : float32 lanes of a vector.
    token_vectors : vectors of tokens in a panel, the width of the register tile.
    outputs : output features of the register tile.
    weights_at_once : consecutive weights of one output loaded together. 1 broadcasts each from
        memory, which is free on x86; 4 suits NEON, which multiplies by a lane of a register.
    block_panels : panels packed together; what a task reads again and again, from L2.
    task_outputs : output features of one task; a multiple of `outputs` and of `lanes`.
    block_depth : input features summed up before the next are touched; bounds what must stay in
        cache: `block_depth * outputs` weights in L1, `block_depth * block_tokens` activations in
        L2. A multiple of the quantization group.
    gemv_outputs : rows of a float32 weight that the GEMV reads side by side.
    """

    lanes: int
    token_vectors: int
    outputs: int
    weights_at_once: int
    block_panels: int
    task_outputs: int
    block_depth: int
    gemv_outputs: int

    @property
    def panel_tokens(self) -> int:
        """Tokens of one panel."""
        return self.lanes * self.token_vectors

    @property
    def block_tokens(self) -> int:
        """Tokens packed together."""
        return self.panel_tokens * self.block_panels


# 16 registers hold 6 x 2 accumulators, 2 vectors of tokens and a broadcast weight. With 32, 8 x 2
# leave room for 8 vectors of weights on NEON; on AVX512 12 x 2 halve the lines of activations that
# a multiply-add takes from L2, and a panel of 192 features is small enough for half of L1. 128
# tokens of 512 features, or 256 of 192, are half the L2 of the smallest core we aim at, or less.
_TILES: dict[Isa, LinearTile] = {
    "generic": LinearTile(
        lanes=4,
        token_vectors=2,
        outputs=6,
        weights_at_once=1,
        block_panels=16,
        task_outputs=48,
        block_depth=512,
        gemv_outputs=8,
    ),
    "avx2": LinearTile(
        lanes=8,
        token_vectors=2,
        outputs=6,
        weights_at_once=1,
        block_panels=8,
        task_outputs=48,
        block_depth=512,
        gemv_outputs=8,
    ),
    "avx512": LinearTile(
        lanes=16,
        token_vectors=2,
        outputs=12,
        weights_at_once=1,
        block_panels=8,
        task_outputs=48,
        block_depth=192,
        gemv_outputs=8,
    ),
    "neon": LinearTile(
        lanes=4,
        token_vectors=2,
        outputs=8,
        weights_at_once=4,
        block_panels=16,
        task_outputs=48,
        block_depth=512,
        gemv_outputs=8,
    ),
}


def gemm_name(spec: LinearSpec) -> str:
    """What tuned tiles call a layer's GEMM."""
    return f"gemm_{spec.quantization}_{spec.out_features}x{spec.in_features}"


def linear_tile(spec: LinearSpec, features: CpuFeatures) -> LinearTile:
    """The tile sizes for a layer: the vector unit's, but for those that were tuned."""
    return replace(_TILES[features.isa], **features.tuned_sizes(gemm_name(spec)))
