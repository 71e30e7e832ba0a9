"""Results don't depend on how many threads share the work, not even in the last bit."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import tvm

from tir_kernels.attention.dense import dense_paged_decode, dense_ragged_prefill
from tir_kernels.build import build_kernels
from tir_kernels.features import cpu_features
from tir_kernels.shadow.prefill import shadow_paged_prefill

from .dense_harness import SMOLLM2
from .in_threads import PILOTS, sparse

ROOT = Path(__file__).parents[2]


def test_any_number_of_threads(tmp_path: Path, host_target: tvm.target.Target) -> None:
    features = cpu_features(host_target)
    library = tmp_path / "kernels.so"
    shadow = {name: shadow_paged_prefill(sparse(pilot), features) for name, pilot in PILOTS.items()}
    build_kernels(
        {
            "ragged_prefill": dense_ragged_prefill(SMOLLM2, features),
            "paged_decode": dense_paged_decode(SMOLLM2, features),
            **shadow,
        },
        host_target,
    ).export_library(str(library))
    runs = []
    for threads in (1, os.cpu_count() or 1):
        results = tmp_path / f"{threads}.npz"
        subprocess.run(
            [sys.executable, "-m", "tests.tir_kernels.in_threads", library, results],
            cwd=ROOT,
            env={**os.environ, "TVM_NUM_THREADS": str(threads)},
            check=True,
        )
        runs.append(dict(np.load(results)))
        assert runs[-1].pop("threads") == threads
    alone, together = runs
    for name, values in alone.items():
        assert np.isfinite(values).all()
        np.testing.assert_array_equal(together[name], values)
