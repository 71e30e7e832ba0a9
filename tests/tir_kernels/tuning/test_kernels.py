"""What is measured computes what its definition says, with any tile and any indices."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import tvm
from numpy.typing import NDArray

from tir_kernels.build import build_kernels
from tir_kernels.constants import PAGE_SIZE_TOKENS
from tir_kernels.features import TunedTile, cpu_features
from tir_kernels.reference import linear as linear_twin
from tir_kernels.reference.sparse_attention import sparse_attention as attention_twin
from tir_kernels.tuning.definitions import ENTRY, definition
from tir_kernels.tuning.kernels import measured_kernel
from tir_kernels.tuning.space import sizes_of, tile_space
from tir_kernels.tuning.workloads import GemmWorkload, ListWorkload, Workload

from .small_workloads import LISTS, WORKLOADS

TOLERANCE = {"rtol": 1e-4, "atol": 1e-4}

Array = NDArray[Any]


def outputs(workload: Workload) -> int:
    """How many of the arguments, the last ones, are written."""
    return 2 if isinstance(workload, ListWorkload) else 1


def run(module: tvm.runtime.Module, workload: Workload, arguments: list[Array]) -> list[Array]:
    tensors = [tvm.runtime.tensor(array) for array in arguments]
    module[ENTRY](*tensors)
    return [tensor.numpy() for tensor in tensors[-outputs(workload) :]]


def twin(workload: Workload, arguments: list[Array]) -> list[Array]:
    """What NumPy says, of arguments whose indices are in range."""
    if isinstance(workload, GemmWorkload):
        x, *weight, _ = arguments
        w = weight[0] if len(weight) == 1 else linear_twin.dequantize_q4(*weight)
        return [linear_twin.linear(x, w)]
    q, pages, indices, *_ = arguments
    planes = pages.reshape(-1, 2, PAGE_SIZE_TOKENS, workload.head_dim)
    k, v = (planes[:, plane].reshape(workload.keys, workload.head_dim) for plane in (0, 1))
    output, lse = np.zeros(q.shape), np.zeros(q.shape[:2])
    for i in range(len(q)):
        lists = [indices[i // workload.block_queries]] * workload.heads
        output[i], lse[i] = attention_twin(q[i], k, v, lists, workload.attention.sm_scale)
    return [output, lse]


def kernel_with(workload: Workload, number: int, target: tvm.target.Target) -> Any:
    """The kernel with a tile of the space; 0 is the hand-chosen one."""
    features = cpu_features(target)
    tile = list(tile_space(workload, features))[number]
    tuned = TunedTile(workload.name, tuple(sizes_of(workload, tile).items()))
    kernel = measured_kernel(workload, replace(features, tuned=(tuned,)))
    return build_kernels({ENTRY: kernel}, target)


@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda w: w.name)
def test_definition_equals_twin(workload: Workload, host_target: tvm.target.Target) -> None:
    arguments = workload.arguments(np.random.default_rng(1))
    module = tvm.compile(definition(workload), target=host_target)
    got, want = run(module, workload, arguments), twin(workload, arguments)
    for one, other in zip(got, want, strict=True):
        np.testing.assert_allclose(one, other, **TOLERANCE)


@pytest.mark.parametrize("number", [0, 1, 7, -7, -1])
@pytest.mark.parametrize("workload", WORKLOADS, ids=lambda w: w.name)
def test_tuned_kernel_equals_twin(
    workload: Workload, number: int, host_target: tvm.target.Target
) -> None:
    arguments = workload.arguments(np.random.default_rng(2))
    module = kernel_with(workload, number, host_target)
    got, want = run(module, workload, arguments), twin(workload, arguments)
    for one, other in zip(got, want, strict=True):
        assert np.isfinite(one).all()
        np.testing.assert_allclose(one, other, **TOLERANCE)


def test_indices_are_clamped(host_target: tvm.target.Target) -> None:
    # What MetaSchedule's own random filling makes of an index is some 1,080,000,000.
    hostile = LISTS.arguments(np.random.default_rng(3))
    hostile[2][0, 0], hostile[2][0, 1], hostile[2][1, -2:] = -1, -(2**31), 2**31 - 1
    hostile[2][2] = 1_080_000_000
    clamped = [*hostile]
    clamped[2] = np.clip(hostile[2], 0, LISTS.keys - 1)
    want = twin(LISTS, clamped)
    for module in (
        kernel_with(LISTS, 0, host_target),
        tvm.compile(definition(LISTS), target=host_target),
    ):
        for one, other in zip(run(module, LISTS, hostile), want, strict=True):
            np.testing.assert_allclose(one, other, **TOLERANCE)


def test_random_lists_ascend_and_stay_in_range() -> None:
    indices = LISTS.arguments(np.random.default_rng(4))[2]
    assert indices.dtype == np.int32
    assert (np.diff(indices, axis=1) > 0).all()
    assert indices.min() >= 0
    assert indices.max() < LISTS.keys
    assert not np.array_equal(indices[0], indices[1])
