"""Merging two parts: against attention over the whole, and with empty parts exactly."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
import tvm

from tir_kernels.constants import EMPTY_LSE
from tir_kernels.reference import attention as twin
from tir_kernels.spec import AttentionSpec

from ..dense_harness import (
    HALF,
    ODD_DIMS,
    SMOLLM2,
    TOLERANCE,
    dense_kernel,
    indptr,
    output_tolerance,
    run_ragged_prefill,
    spec_id,
)

Array = npt.NDArray[np.float32]


def merge(
    spec: AttentionSpec,
    target: tvm.target.Target,
    v: Array,
    s: Array,
    v_other: Array,
    s_other: Array,
) -> tuple[Array, Array]:
    first, lse, second, lse_other = (tvm.runtime.tensor(x) for x in (v, s, v_other, s_other))
    dense_kernel("merge_states", spec, target)(first, lse, second, lse_other)
    np.testing.assert_array_equal(second.numpy(), v_other)
    np.testing.assert_array_equal(lse_other.numpy(), s_other)
    return first.numpy(), lse.numpy()


def parts(spec: AttentionSpec, tokens: int, spread: float) -> tuple[Array, Array, Array, Array]:
    rng = np.random.default_rng(tokens)
    shape = (2, tokens, spec.num_q_heads, spec.head_dim)
    v, v_other = rng.standard_normal(shape, dtype=np.float32).astype(spec.dtype)
    s, s_other = spread * rng.standard_normal((2, tokens, spec.num_q_heads), dtype=np.float32)
    return v, s, v_other, s_other


@pytest.mark.parametrize("spread", [1.0, 1000.0])
@pytest.mark.parametrize("spec", [SMOLLM2, ODD_DIMS, HALF], ids=spec_id)
def test_kernel_equals_twin(
    spec: AttentionSpec, spread: float, host_target: tvm.target.Target
) -> None:
    for tokens in (0, 1, 77):
        v, s, v_other, s_other = parts(spec, tokens, spread)
        want = twin.merge_states(v, s, v_other, s_other)
        got = merge(spec, host_target, v, s, v_other, s_other)
        np.testing.assert_allclose(got[0], want[0], **output_tolerance(spec))
        np.testing.assert_allclose(got[1], want[1], **TOLERANCE)


@pytest.mark.parametrize("spec", [SMOLLM2, HALF], ids=spec_id)
def test_an_empty_part_changes_nothing(spec: AttentionSpec, host_target: tvm.target.Target) -> None:
    v, s, _, _ = parts(spec, 9, 30.0)
    zeros, empty = np.zeros_like(v), np.full_like(s, EMPTY_LSE)
    for got in (
        merge(spec, host_target, v, s, zeros, empty),
        merge(spec, host_target, zeros, empty, v, s),
    ):
        np.testing.assert_array_equal(got[0], v)
        np.testing.assert_array_equal(got[1], s)
    both = merge(spec, host_target, zeros, empty, zeros, empty)
    np.testing.assert_array_equal(both[0], zeros)
    np.testing.assert_array_equal(both[1], empty)


def test_halves_merge_into_the_whole(host_target: tvm.target.Target) -> None:
    """Attention over keys 0..20 merged with 20..50 is attention over 0..50."""
    spec = SMOLLM2
    rng = np.random.default_rng(3)
    q = rng.standard_normal((11, spec.num_q_heads, spec.head_dim), dtype=np.float32)
    k, v = rng.standard_normal((2, 50, spec.num_kv_heads, spec.head_dim), dtype=np.float32)

    def attend(first: int, last: int) -> tuple[Array, Array]:
        keys = slice(first, last)
        lengths = indptr([11]), indptr([last - first])
        return run_ragged_prefill(
            dense_kernel("ragged_prefill", spec, host_target),
            spec,
            q,
            lengths[0],
            k[keys],
            v[keys],
            lengths[1],
            causal=False,
        )

    merged = merge(spec, host_target, *attend(0, 20), *attend(20, 50))
    whole = attend(0, 50)
    np.testing.assert_allclose(merged[0], whole[0], **TOLERANCE)
    np.testing.assert_allclose(merged[1], whole[1], **TOLERANCE)
