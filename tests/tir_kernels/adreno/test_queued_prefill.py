"""The kernel of three machines: the twin's lists and exact attention, whoever else does nothing.

Its host code is compiled for this machine and runs on TVM's thread pool; its kernels run on PoCL.
What can go wrong: lists of the head before, rows of another sequence, launches out of order, a
pilot that is missing or fails, heads that have no lists.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
import tvm
from tvm_ffi.registry import remove_global_func

from shadowattn_tvm.device.opencl.native_host import NativeHost, SharedMemoryQueue
from shadowattn_tvm.device.opencl.queue import find_device
from shadowattn_tvm.errors import ShadowAttnError
from tests.transform.npu_in_process import RecordingPilot
from tir_kernels.shadow.npu_pilot import NPU_PILOT
from tir_kernels.spec import PilotSpec, ShadowSpec

from ..dense_harness import HALF_ODD_DIMS, SMOLLM2
from ..shadow.test_prefill import (
    DENSE_LAYER,
    MIXED_LAYER,
    NUM_LAYERS,
    SPARSE_LAYER,
    shadow_spec,
)
from ..shadow_harness import with_strides
from .conftest import POCL
from .native_kernel import native_kernel
from .test_shadow_prefill import LENGTHS, check, draw, with_means

GROUPS = replace(
    with_strides(shadow_spec(SMOLLM2, PilotSpec(score_bits=8, share_group=True, query_block=32))),
    launches=(((1, 2), (0,)), ((2, 0, 1),), ((0,), (1,), (2,))),
)
HEADS = replace(
    with_means(
        shadow_spec(
            HALF_ODD_DIMS, PilotSpec(bits=6, hadamard_rotation=True, score_bits=9, query_block=8)
        )
    ),
    rest="mean",
)


@pytest.fixture(scope="module")
def queue() -> SharedMemoryQueue:
    try:
        return SharedMemoryQueue(find_device(POCL))
    except ShadowAttnError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def groups(queue: SharedMemoryQueue, host_target: tvm.target.Target) -> NativeHost:
    return native_kernel(queue, GROUPS, host_target)


@pytest.fixture
def pilot() -> Iterator[RecordingPilot]:
    recording = RecordingPilot()
    tvm.register_global_func(NPU_PILOT, recording)
    yield recording
    remove_global_func(NPU_PILOT)


def check_everything(kernel: NativeHost, spec: ShadowSpec) -> None:
    for q_lengths, kv_lengths in LENGTHS:
        for layer in (SPARSE_LAYER, MIXED_LAYER):
            check(kernel, spec, layer, *draw(spec.attention, q_lengths, kv_lengths))
    check(kernel, spec, DENSE_LAYER, *draw(spec.attention, [20], [33]))
    check(kernel, spec, SPARSE_LAYER, *draw(spec.attention, [20], [33]), causal=True)


@pytest.mark.opencl
def test_groups_equal_the_twin(groups: NativeHost, pilot: RecordingPilot) -> None:
    check_everything(groups, GROUPS)
    pilot.calls.clear()
    check(groups, GROUPS, SPARSE_LAYER, *draw(SMOLLM2, [40, 3], [203, 90]))
    assert {call["layer"] for call in pilot.calls} == {SPARSE_LAYER}
    units = [[row[0][0] // 3 for row in call["heads"]] for call in pilot.calls]
    assert [unit for launch in units for unit in launch] == [1, 2, 0] * 2


@pytest.mark.opencl
def test_heads_in_halfs_equal_the_twin(
    queue: SharedMemoryQueue, host_target: tvm.target.Target, pilot: RecordingPilot
) -> None:
    check_everything(native_kernel(queue, HEADS, host_target), HEADS)
    assert pilot.calls


@pytest.mark.opencl
def test_a_missing_or_failing_pilot_is_an_error(groups: NativeHost) -> None:
    batch = draw(SMOLLM2, [40], [203])
    with pytest.raises(RuntimeError, match=f"expected {NPU_PILOT} to be registered"):
        check(groups, GROUPS, SPARSE_LAYER, *batch)
    check(groups, GROUPS, DENSE_LAYER, *batch)  # needs none
    with pytest.raises(RuntimeError, match="no such layer"):
        check(groups, GROUPS, NUM_LAYERS, *batch)
    for fails_at in (0, 1):
        tvm.register_global_func(NPU_PILOT, RecordingPilot(fails_at), override=True)
        try:
            with pytest.raises(ValueError, match="the DSP is away"):
                check(groups, GROUPS, SPARSE_LAYER, *batch)
        finally:
            remove_global_func(NPU_PILOT)
