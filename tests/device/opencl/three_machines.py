"""Run the three machines' kernel of a plan in a process of its own, with two threads.

`python -m tests.device.opencl.three_machines PLAN LAYER QUERIES KEYS RESULTS` writes outputs and
what they should be to RESULTS (.npz), and when everything happened to RESULTS + ".json".
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import tvm
from tvm.target.codegen import llvm_get_system_cpu, llvm_get_system_triple

from shadowattn_tvm.compiler.kernel_parameters import planned_spec
from shadowattn_tvm.device.opencl.native_host import Enqueued, SharedMemoryQueue
from shadowattn_tvm.device.opencl.queue import find_device
from shadowattn_tvm.plan import load_plan
from tests.tir_kernels.adreno.conftest import POCL
from tests.tir_kernels.adreno.native_kernel import native_kernel
from tests.tir_kernels.dense_harness import indptr, paged_batch, run_paged_prefill
from tir_kernels.reference.npu_pilot import npu_pilot
from tir_kernels.reference.shadow_prefill import shadow_paged_prefill
from tir_kernels.shadow.npu_pilot import NPU_PILOT
from tir_kernels.spec import AttentionSpec

PATIENCE_S = 60.0

Span = tuple[int, int]


class PatientPilot:
    """The NumPy twin as an NPU: no launch ends before the GPU has attended to all heads of those
    before it. It ends at all only if the host goes on with them meanwhile."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self.heads: list[list[int]] = []
        self.attended: list[Enqueued] = []
        self.changed = threading.Condition()

    def note(self, launch: Enqueued) -> None:
        """Told of everything enqueued; the kernel that attends to lists is told its owner."""
        if "owner" in launch.scalars:
            with self.changed:
                self.attended.append(launch)
                self.changed.notify()

    def __call__(
        self,
        layer: int,
        queries: tvm.runtime.Tensor,
        keys: tvm.runtime.Tensor,
        heads: tvm.runtime.Tensor,
        query_block: int,
        score_max: int,
        importance: tvm.runtime.Tensor,
    ) -> None:
        begin = time.monotonic_ns()
        votes = npu_pilot(queries.numpy(), keys.numpy(), heads.numpy(), query_block, score_max)
        importance.copyfrom(
            np.pad(votes, ((0, 0), (0, 0), (0, importance.shape[2] - keys.shape[1])))
        )
        earlier = sum(map(len, self.heads))
        self.heads.append(heads.numpy()[:, 0, 0].tolist())
        with self.changed:
            if not self.changed.wait_for(lambda: len(self.attended) >= earlier, PATIENCE_S):
                raise TimeoutError(f"{len(self.attended)} of {earlier} heads were enqueued")
        for launch in self.attended[:earlier]:
            launch.event.wait()
        self.spans.append((begin, time.monotonic_ns()))


def clock_offset(queue: SharedMemoryQueue) -> tuple[int, int]:
    """What the monotonic clock is ahead of the device's, and what that may be off by; ns."""
    found = []
    memory = np.zeros(1, np.int32)
    for _ in range(10):
        before = time.monotonic_ns()
        buffer = queue.opencl.Buffer(queue.context, queue.opencl.mem_flags.READ_WRITE, 4)
        event = queue.opencl.enqueue_copy(queue.queue, buffer, memory, is_blocking=False)
        event.wait()
        width = time.monotonic_ns() - before
        found.append((width, before + width // 2 - event.profile.end))
    width, offset = min(found)
    return offset, width


def spans(launches: Iterable[Enqueued], offset: int) -> list[Span]:
    """By the monotonic clock."""
    times: list[Any] = [launch.event.profile for launch in launches]
    return [(profile.start + offset, profile.end + offset) for profile in times]


def main(plan_file: str, layer: str, queries: str, keys: str, results: str) -> None:
    plan = load_plan(Path(plan_file))
    model = plan.model
    attention = AttentionSpec(
        model.num_q_heads, model.num_kv_heads, model.head_dim, sm_scale=model.head_dim**-0.5
    )
    spec = planned_spec(
        plan, attention, num_layers=model.num_layers, context_window_tokens=int(keys)
    )
    host = tvm.target.Target(
        {"kind": "llvm", "mcpu": llvm_get_system_cpu(), "mtriple": llvm_get_system_triple()}
    )
    queue = SharedMemoryQueue(find_device(POCL))
    kernel = native_kernel(queue, spec, host)
    rng = np.random.default_rng(0)
    shape = (int(queries), attention.num_q_heads, attention.head_dim)
    q, q_indptr = rng.standard_normal(shape, dtype=np.float32), indptr([int(queries)])
    batch = paged_batch(attention, [int(keys)], rng)
    before = clock_offset(queue)
    pilot = PatientPilot()
    tvm.register_global_func(NPU_PILOT, pilot)
    output, lse = run_paged_prefill(
        lambda *arguments: kernel(*arguments, enqueued=pilot.note),
        *(attention, q, q_indptr, batch, False, int(layer)),
    )
    after = clock_offset(queue)
    offset, slack = after[0], before[1] + after[1] + abs(after[0] - before[0])
    pages = (batch.pages, batch.page_indptr, batch.page_values, batch.last_page_len)
    want = shadow_paged_prefill(spec, int(layer), q, q_indptr, *pages, False)
    np.savez(results, output=output, lse=lse, twin_output=want[0], twin_lse=want[1])
    document = {
        "pilots": [{"heads": h, "span": s} for h, s in zip(pilot.heads, pilot.spans, strict=True)],
        "attended": [
            {"owner": launch.scalars["owner"], "span": span}
            for launch, span in zip(pilot.attended, spans(pilot.attended, offset), strict=True)
        ],
        "slack_ns": slack,
    }
    Path(results + ".json").write_text(json.dumps(document))


if __name__ == "__main__":
    main(*sys.argv[1:])
