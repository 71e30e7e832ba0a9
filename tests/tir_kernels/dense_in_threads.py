"""Run compiled dense kernels in a process of its own: the environment sizes its thread pool.

`python -m tests.tir_kernels.dense_in_threads LIBRARY RESULTS`
"""

from __future__ import annotations

import sys

import numpy as np
import tvm

from .dense_harness import SMOLLM2, indptr, paged_batch, run_paged_decode, run_ragged_prefill

Q_LENGTHS = [130, 0, 1, 60]
KV_LENGTHS = [700, 3, 0, 50]


def main(library: str, results: str) -> None:
    """Write every output, and how many threads the pool had, to the .npz file `results`."""
    module = tvm.runtime.load_module(library)
    rng = np.random.default_rng(0)
    heads, dims = (SMOLLM2.num_q_heads, SMOLLM2.num_kv_heads), SMOLLM2.head_dim
    q = rng.standard_normal((sum(Q_LENGTHS), heads[0], dims), dtype=np.float32)
    k, v = rng.standard_normal((2, len(q), heads[1], dims), dtype=np.float32)
    starts = indptr(Q_LENGTHS)
    batch = paged_batch(SMOLLM2, KV_LENGTHS, rng)
    ragged = run_ragged_prefill(
        module["ragged_prefill"], SMOLLM2, q, starts, k, v, starts, causal=True
    )
    decode = run_paged_decode(module["paged_decode"], SMOLLM2, q[: len(KV_LENGTHS)], batch)
    np.savez(
        results,
        threads=tvm.get_global_func("runtime.NumThreads")(),
        ragged_output=ragged[0],
        ragged_lse=ragged[1],
        decode_output=decode[0],
        decode_lse=decode[1],
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
