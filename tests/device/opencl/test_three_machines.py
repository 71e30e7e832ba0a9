"""Three machines work on one layer at the same time, in the order that the planner gave them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from shadowattn_tvm.config.devices import device_costs
from shadowattn_tvm.pipeline import Shape, planned_launches
from shadowattn_tvm.plan import Plan, Sharing, save_plan
from shadowattn_tvm.plan.head_order import head_order
from tests.plan.tiny_plan import shared_lists
from tests.tir_kernels.adreno.conftest import POCL, open_queue
from tests.tir_kernels.dense_harness import TOLERANCE

ROOT = Path(__file__).parents[3]

LAYER, QUERIES, KEYS = 1, 60, 1000
RATIOS = (0.05, 0.4, 0.1, 1.0, 0.25, 0.6)

PLANNED_FOR = Shape(500, 2000)
"""A larger chunk, for which it pays to launch few heads at a time."""


@pytest.mark.opencl
def test_the_gpu_attends_while_the_npu_estimates(tiny_plan: Plan, tmp_path: Path) -> None:
    open_queue(POCL)
    plan = shared_lists(tiny_plan, Sharing(query_block=8), RATIOS)
    costs = device_costs("snapdragon-8-gen-3-adreno").costs
    assert not costs.shared_cpu
    launches = planned_launches(plan, costs, PLANNED_FOR)
    save_plan(plan.model_copy(update={"head_order": head_order(launches)}), tmp_path / "p.json")
    results = tmp_path / "results.npz"
    subprocess.run(
        [
            *(sys.executable, "-m", "tests.device.opencl.three_machines"),
            *(tmp_path / "p.json", str(LAYER), str(QUERIES), str(KEYS), results),
        ],
        cwd=ROOT,
        env={**os.environ, "TVM_NUM_THREADS": "2"},
        check=True,
        timeout=300,
    )
    arrays = np.load(results)
    np.testing.assert_allclose(arrays["output"], arrays["twin_output"], **TOLERANCE)
    np.testing.assert_allclose(arrays["lse"], arrays["twin_lse"], **TOLERANCE)

    happened = json.loads(Path(f"{results}.json").read_text())
    pilots, attended = happened["pilots"], happened["attended"]
    dense = RATIOS.index(1.0)
    planned = [list(launch) for launch in launches[LAYER] if launch != (dense,)]
    assert len(planned) > 2
    assert any(len(launch) > 1 for launch in planned), "nothing is fused"
    assert [pilot["heads"] for pilot in pilots] == planned
    assert [work["owner"] for work in attended] == [head for launch in planned for head in launch]

    slack = happened["slack_ns"]
    number = {head: i for i, launch in enumerate(planned) for head in launch}
    for work in attended:
        launch = number[work["owner"]]
        begin, end = work["span"]
        assert begin >= pilots[launch]["span"][1] - slack, "attended before it was estimated"
        if launch + 1 < len(pilots):
            busy_begin, busy_end = pilots[launch + 1]["span"]
            assert busy_begin - slack <= begin <= end <= busy_end + slack
