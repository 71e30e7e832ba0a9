"""Run compiled attention kernels in a process of its own: the environment sizes its thread pool.

`python -m tests.tir_kernels.in_threads LIBRARY RESULTS`
"""

from __future__ import annotations

import sys

import numpy as np
import tvm

from tir_kernels.constants import RATIO_ONE
from tir_kernels.spec import HeadParameters, PilotSpec, ShadowSpec

from .dense_harness import (
    SMOLLM2,
    indptr,
    paged_batch,
    run_paged_decode,
    run_paged_prefill,
    run_ragged_prefill,
)

Q_LENGTHS = [130, 0, 1, 60]
KV_LENGTHS = [700, 3, 0, 50]

PILOTS = {
    "a list per query": PilotSpec(),
    "shared lists": PilotSpec(score_bits=8, share_group=True, query_block=16),
}


def sparse(pilot: PilotSpec) -> ShadowSpec:
    """One layer that keeps a fifth."""
    head = HeadParameters(
        q_scale=0.03,
        k_scale=0.03,
        keep_ratio_q16=RATIO_ONE // 5,
        requant=((1e-3,) * 3,) * 3 if pilot.requantize else None,
    )
    return ShadowSpec(SMOLLM2, ((head,) * SMOLLM2.num_q_heads,), 0.5, k_min=5, pilot=pilot)


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
    outputs = {"ragged": ragged, "decode": decode}
    for name in PILOTS:
        outputs[name] = run_paged_prefill(
            module[name], SMOLLM2, q, starts, batch, causal=False, layer=0
        )
    arrays = {
        f"{name}, {i}": array for name, pair in outputs.items() for i, array in enumerate(pair)
    }
    np.savez(results, threads=tvm.get_global_func("runtime.NumThreads")(), **arrays)


if __name__ == "__main__":
    main(*sys.argv[1:])
