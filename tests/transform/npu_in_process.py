"""Run pipelined kernels in a process of its own, with and without a pilot that it registers.

`python -m tests.transform.npu_in_process LIBRARY RESULTS`: the library has `stand_in`, which knows
no other pilot, and `pipelined`, which asks the process for it.
"""

from __future__ import annotations

import json
import sys

import numpy as np
import tvm
from tvm_ffi.registry import remove_global_func

from tests.tir_kernels.dense_harness import SMOLLM2, indptr, paged_batch, run_paged_prefill
from tir_kernels.reference.npu_pilot import npu_pilot
from tir_kernels.shadow.npu_pilot import NPU_PILOT

Q_LENGTHS = [70, 0, 1, 33]
KV_LENGTHS = [500, 3, 0, 331]

GARBAGE = 2**31 - 1
"""Where no key is: it must not be taken for the most important of all."""


class RecordingPilot:
    """The NumPy twin as the process's pilot."""

    def __init__(self, fails_at: int | None = None) -> None:
        self.fails_at = fails_at
        self.calls: list[dict[str, object]] = []

    def __call__(
        self,
        layer: int,
        queries: tvm.runtime.Tensor,
        keys: tvm.runtime.Tensor,
        heads: tvm.runtime.Tensor,
        query_block: int,
        score_max: int,
        importance: tvm.runtime.Tensor,
    ) -> str:
        if len(self.calls) == self.fails_at:
            raise ValueError("the DSP is away")
        num_keys = keys.shape[1]
        self.calls.append(
            {
                "layer": layer,
                "queries": queries.shape[2],
                "keys": num_keys,
                "heads": heads.numpy().tolist(),
                "query_block": query_block,
                "score_max": score_max,
            }
        )
        votes = np.full(importance.shape, GARBAGE, np.int32)
        votes[..., :num_keys] = npu_pilot(
            queries.numpy(), keys.numpy(), heads.numpy(), query_block, score_max
        )
        importance.copyfrom(votes)
        return "a result that is an object, which somebody must let go"


def main(library: str, results: str) -> None:
    """Write outputs to the .npz file `results`, and calls and errors to `results` + ".json"."""
    module = tvm.runtime.load_module(library)
    rng = np.random.default_rng(0)
    shape = (sum(Q_LENGTHS), SMOLLM2.num_q_heads, SMOLLM2.head_dim)
    q = rng.standard_normal(shape, dtype=np.float32)
    batch = paged_batch(SMOLLM2, KV_LENGTHS, rng)
    arrays = {}

    def run(kernel: str, name: str) -> None:
        output, lse = run_paged_prefill(
            module[kernel], SMOLLM2, q, indptr(Q_LENGTHS), batch, causal=False, layer=1
        )
        arrays[f"{name}, output"], arrays[f"{name}, lse"] = output, lse

    run("stand_in", "stand-in")
    run("pipelined", "absent")
    pilot = RecordingPilot()
    tvm.register_global_func(NPU_PILOT, pilot)
    run("pipelined", "present")
    errors = []
    for fails_at in (0, 1):
        failing = RecordingPilot(fails_at)
        tvm.register_global_func(NPU_PILOT, failing, override=True)
        try:
            run("pipelined", "failing")
        except ValueError as error:
            errors.append(str(error))
        assert len(failing.calls) == fails_at, "nothing is launched after a failure"
    remove_global_func(NPU_PILOT)
    run("pipelined", "absent again")
    # registered until the very end: the library mustn't hold on to it
    tvm.register_global_func(NPU_PILOT, RecordingPilot())
    run("pipelined", "present again")
    np.savez(results, threads=tvm.get_global_func("runtime.NumThreads")(), **arrays)
    with open(results + ".json", "w") as file:
        json.dump({"calls": pilot.calls, "errors": errors}, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
