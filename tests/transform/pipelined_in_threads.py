"""Run pipelined kernels in a process of its own: the environment sizes its thread pool.

`python -m tests.transform.pipelined_in_threads LIBRARY RESULTS NAME...`
"""

from __future__ import annotations

import sys

import numpy as np
import tvm

from tests.tir_kernels.dense_harness import SMOLLM2, indptr, paged_batch, run_paged_prefill

Q_LENGTHS = [130, 0, 1, 60]
KV_LENGTHS = [700, 3, 0, 331]

ROUNDS = 3
"""With other inputs every time: what an earlier round left in a buffer is wrong in the next."""


def main(library: str, results: str, *names: str) -> None:
    """Write every function's outputs of every round to the .npz file `results`."""
    module = tvm.runtime.load_module(library)
    arrays = {}
    for seed in range(ROUNDS):
        rng = np.random.default_rng(seed)
        shape = (sum(Q_LENGTHS), SMOLLM2.num_q_heads, SMOLLM2.head_dim)
        q = rng.standard_normal(shape, dtype=np.float32)
        batch = paged_batch(SMOLLM2, KV_LENGTHS, rng)
        for name in names:
            output, lse = run_paged_prefill(
                module[name], SMOLLM2, q, indptr(Q_LENGTHS), batch, causal=False, layer=0
            )
            arrays[f"{name}, output {seed}"] = output
            arrays[f"{name}, lse {seed}"] = lse
    np.savez(results, threads=tvm.get_global_func("runtime.NumThreads")(), **arrays)


if __name__ == "__main__":
    main(*sys.argv[1:])
