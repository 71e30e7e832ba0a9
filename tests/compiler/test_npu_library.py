"""A whole library whose prefill asks the process for the NPU's pilot, and one that doesn't."""

from __future__ import annotations

from itertools import chain

import numpy as np
import tvm
from tvm_ffi.registry import remove_global_func

from shadowattn_tvm.compiler import compile_library
from shadowattn_tvm.plan import Plan, Sharing
from shadowattn_tvm.runtime.session import Session
from shadowattn_tvm.weights import ModelDirectory
from tests.plan.tiny_plan import shared_lists
from tests.transform.npu_in_process import RecordingPilot
from tir_kernels.shadow.npu_pilot import NPU_PILOT

TOKENS = tuple(int(t) for t in np.random.default_rng(3).integers(0, 256, 60))
CHUNK = 16  # the tiny model's


def test_the_plans_launches_reach_the_process_and_change_no_logit(
    tiny_directory: ModelDirectory, tiny_plan: Plan
) -> None:
    plan = shared_lists(tiny_plan, Sharing(query_block=8))
    launches = ((3, 0), 1, (5, 2, 4))
    plan = plan.model_copy(update={"head_order": ((0, 1, 2, 3, 4, 5), launches, launches)})
    host = compile_library(tiny_directory, plan, device="host").path
    npu = compile_library(tiny_directory, plan, device="host-npu").path
    assert b"TVMFFIFunctionGetGlobal" not in host.read_bytes()
    assert b"TVMFFIFunctionGetGlobal" in npu.read_bytes()

    want = Session(tiny_directory, host).prefill(TOKENS)
    stand_in = Session(tiny_directory, npu).prefill(TOKENS)
    pilot = RecordingPilot()
    tvm.register_global_func(NPU_PILOT, pilot)
    try:
        from_process = Session(tiny_directory, npu).prefill(TOKENS)
    finally:
        remove_global_func(NPU_PILOT)
    np.testing.assert_array_equal(stand_in, want)
    np.testing.assert_array_equal(from_process, want)

    starts = range(CHUNK, len(TOKENS), CHUNK)
    got = [(call["layer"], call["keys"], call["queries"]) for call in pilot.calls]
    sizes = {start: min(CHUNK, len(TOKENS) - start) for start in starts}
    # heads of a launch may measure different buckets, so that it is split, but never reordered
    assert sorted(set(got)) == sorted((layer, n, m) for n, m in sizes.items() for layer in (1, 2))
    for key in set(got):
        calls = [call for call, k in zip(pilot.calls, got, strict=True) if k == key]
        heads = [np.array(call["heads"])[:, 0, 0].tolist() for call in calls]
        assert list(chain.from_iterable(heads)) == [3, 0, 1, 5, 2, 4]
        borders = set(np.cumsum([len(launch) for launch in heads]).tolist())
        assert borders >= {2, 3, 6}
