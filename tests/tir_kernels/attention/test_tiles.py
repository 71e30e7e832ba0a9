"""Every vector unit's tile sizes give the same attention: run here, whatever the host's vectors."""

from __future__ import annotations

import numpy as np
import pytest
import tvm

from tir_kernels.attention.tiles import attention_tile, list_tile
from tir_kernels.build import build_kernels
from tir_kernels.features import AVX2, AVX512, GENERIC, NEON, CpuFeatures
from tir_kernels.reference import attention as twin

from ..dense_harness import (
    FACTORIES,
    ODD_DIMS,
    TOLERANCE,
    indptr,
    paged_batch,
    run_paged_decode,
    run_paged_prefill,
)


@pytest.mark.parametrize("features", [GENERIC, AVX2, AVX512, NEON], ids=lambda f: f.isa)
@pytest.mark.parametrize("rows", [1, 3, 7, 8, 16, 24, 32, 48, 64, 96, 128, 384, 1024])
def test_lists_fill_their_tiles(rows: int, features: CpuFeatures) -> None:
    base, tile = attention_tile(features), list_tile(features, rows, 64)
    stack_bytes = 4 * tile.lanes * tile.query_vectors * tile.register_rows
    assert stack_bytes <= 4 * base.lanes * base.query_vectors * base.register_rows < 1024
    assert tile.queries <= max(base.queries, tile.strip_queries)
    padded = -(-rows // tile.strip_queries) * tile.strip_queries
    assert padded - rows < tile.lanes, "no vector is empty"
    if rows <= tile.queries:
        assert tile.queries == padded, "no strip is empty"


Q_LENGTHS = [59, 1, 0]
KV_LENGTHS = [150, 0, 33]


@pytest.mark.parametrize("features", [GENERIC, AVX512, NEON], ids=lambda f: f.isa)
def test_tile_equals_twin(features: CpuFeatures, host_target: tvm.target.Target) -> None:
    names = ("paged_prefill", "paged_decode")
    kernels = build_kernels(
        {name: FACTORIES[name](ODD_DIMS, features) for name in names}, host_target
    )
    rng = np.random.default_rng(0)
    shape = (sum(Q_LENGTHS), ODD_DIMS.num_q_heads, ODD_DIMS.head_dim)
    q = rng.standard_normal(shape, dtype=np.float32)
    batch = paged_batch(ODD_DIMS, KV_LENGTHS, rng)
    pages = (batch.pages, batch.page_indptr, batch.page_values, batch.last_page_len)
    starts = indptr(Q_LENGTHS)
    few = q[: len(KV_LENGTHS)]
    for got, want in (
        (
            run_paged_prefill(kernels["paged_prefill"], ODD_DIMS, q, starts, batch, causal=True),
            twin.paged_prefill(ODD_DIMS, q, starts, *pages, causal=True),
        ),
        (
            run_paged_decode(kernels["paged_decode"], ODD_DIMS, few, batch),
            twin.paged_decode(ODD_DIMS, few, *pages),
        ),
    ):
        np.testing.assert_allclose(got[0], want[0], **TOLERANCE)
        np.testing.assert_allclose(got[1], want[1], **TOLERANCE)
