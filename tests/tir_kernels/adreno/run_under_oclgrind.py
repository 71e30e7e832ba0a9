"""A process of its own: runs kernels on Oclgrind, which reports races and bad accesses on stderr.

Arguments: `kernels`, small runs of every slot, or `race`, a kernel that has one, to see that it is
reported.
"""

from __future__ import annotations

import sys
from dataclasses import replace

import numpy as np

from shadowattn_tvm.device.opencl.program import compile_opencl
from shadowattn_tvm.device.opencl.queue import OpenClQueue, find_device
from tests.tir_kernels.dense_harness import (
    TOLERANCE,
    indptr,
    paged_batch,
    run_paged_decode,
    run_paged_prefill,
    run_ragged_prefill,
)
from tests.tir_kernels.shadow.test_prefill import SPARSE_LAYER, shadow_spec
from tir_kernels.adreno import slots
from tir_kernels.reference.shadow_prefill import shadow_paged_prefill as shadow_twin
from tir_kernels.spec import AttentionSpec, PilotSpec

GEOMETRY = AttentionSpec(num_q_heads=2, num_kv_heads=1, head_dim=16, sm_scale=0.25)

PILOTS = (
    PilotSpec(bits=6, hadamard_rotation=True),
    PilotSpec(score_bits=8, share_group=True, query_block=8),
)

RACE = """
__kernel void race(__global int* out) {
  __local int shared[4];
  shared[get_local_id(0)] = 1;
  out[get_local_id(0)] = shared[3 - get_local_id(0)];
}
"""


def run_kernels(queue: OpenClQueue) -> None:
    rng = np.random.default_rng(0)
    batch = paged_batch(GEOMETRY, [19], rng)
    q, k, v = (rng.standard_normal((3, heads, 16), dtype=np.float32) for heads in (2, 1, 1))
    starts = indptr([3])
    for pilot in PILOTS:
        spec = replace(shadow_spec(GEOMETRY, pilot), rest="mean")
        kernels = {
            slot: queue.load(compile_opencl(function, slot))
            for slot, function in slots(GEOMETRY, spec).items()
        }
        got = run_paged_prefill(
            kernels["paged_prefill"], GEOMETRY, q, starts, batch, False, SPARSE_LAYER
        )
        pages = (batch.pages, batch.page_indptr, batch.page_values, batch.last_page_len)
        want = shadow_twin(spec, SPARSE_LAYER, q, starts, *pages, False)
        np.testing.assert_allclose(got[0], want[0], **TOLERANCE)
    run_ragged_prefill(kernels["ragged_prefill"], GEOMETRY, q, starts, k, v, starts, True)
    run_paged_decode(kernels["decode"], GEOMETRY, q[:1], batch)
    kernels["merge_states"](q, np.zeros((3, 2), np.float32), q.copy(), np.ones((3, 2), np.float32))


def run_race(queue: OpenClQueue) -> None:
    program = queue.opencl.Program(queue.context, RACE).build()
    out = queue.opencl.Buffer(queue.context, queue.opencl.mem_flags.READ_WRITE, 16)
    program.race(queue.queue, (4,), (4,), out)
    queue.queue.finish()


if __name__ == "__main__":
    {"kernels": run_kernels, "race": run_race}[sys.argv[1]](OpenClQueue(find_device("oclgrind")))
    print("done")
