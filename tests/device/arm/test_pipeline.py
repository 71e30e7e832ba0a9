"""The pipelined PrimFunc on the device: one thread or two, the same bits."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

from shadowattn_tvm.transform import PipelineHeads
from tests.tir_kernels.dense_harness import (
    HALF,
    SMOLLM2,
    indptr,
    paged_batch,
    run_paged_prefill,
    spec_id,
)
from tests.tir_kernels.in_threads import sparse
from tests.transform.test_pipeline_heads import POOLED, in_order, module_of
from tir_kernels.features import cpu_features
from tir_kernels.shadow.prefill import shadow_paged_prefill
from tir_kernels.spec import ShadowSpec

from .machines import Library, Machine

pytestmark = pytest.mark.arm

Q_LENGTHS = [35, 0, 1, 20]
KV_LENGTHS = [90, 3, 0, 61]
ROUNDS = 2
"""With other inputs every time: what an earlier round left in a buffer is wrong in the next."""


@pytest.fixture(params=[SMOLLM2, HALF], ids=spec_id)
def spec(request: pytest.FixtureRequest) -> ShadowSpec:
    return replace(sparse(POOLED), attention=request.param)


@pytest.fixture
def library(spec: ShadowSpec, phone: Machine) -> Library:
    features = cpu_features(phone.target)
    kernel = shadow_paged_prefill(in_order(spec, (2, 0, 1)), features)
    pipelined = PipelineHeads(1, features)(module_of(kernel))["kernel"]
    plain = shadow_paged_prefill(spec, features)
    return phone.build({"parallel": plain, "pipelined": pipelined})


@pytest.fixture
def configure(phone: Machine) -> Iterator[None]:
    """The device's pool has one thread again afterwards."""
    yield
    phone.kernels.call("runtime.config_threadpool", 1, 1)


@pytest.mark.usefixtures("configure")
def test_one_thread_or_two_change_no_bit(spec: ShadowSpec, library: Library) -> None:
    geometry = spec.attention
    results = {}
    for threads in (1, 2):
        library.machine.kernels.call("runtime.config_threadpool", 1, threads)
        for name in ("parallel", "pipelined"):
            for seed in range(ROUNDS):
                rng = np.random.default_rng(seed)
                shape = (sum(Q_LENGTHS), geometry.num_q_heads, geometry.head_dim)
                q = rng.standard_normal(shape, dtype=np.float32).astype(geometry.dtype)
                results[name, threads, seed] = run_paged_prefill(
                    library[name],
                    geometry,
                    q,
                    indptr(Q_LENGTHS),
                    paged_batch(geometry, KV_LENGTHS, rng),
                    causal=False,
                    layer=0,
                )
    for (_, _, seed), (output, lse) in results.items():
        want = results["parallel", 1, seed]
        assert np.isfinite(output).all()
        np.testing.assert_array_equal(output, want[0])
        np.testing.assert_array_equal(lse, want[1])
