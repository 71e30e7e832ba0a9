"""Every vector unit's tile sizes give the same attention: run here, whatever the host's vectors."""

from __future__ import annotations

import numpy as np
import pytest
import tvm

from tir_kernels.build import build_kernels
from tir_kernels.features import AVX512, GENERIC, NEON, CpuFeatures
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
