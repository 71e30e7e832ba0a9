"""Why `s_tir.HoistIfThenElse` is disabled: it still miscompiles, and our builds are still right.

When the second test fails, TVM has mended the pass: drop it from `tir_kernels.build`.
"""

from __future__ import annotations

import numpy as np
import tvm
from tvm.script import tirx as T  # noqa: N812 - TVMScript's own spelling

from tir_kernels.build import PASS_CONFIG, build_kernels

STEPS = 4
RIGHT = [[1, 0], [1, 1], [1, 1], [1, 1], [0, 1]]
"""Two tasks a step; one works from the first step to the last but one, the other a step behind."""


@T.prim_func(s_tir=True)
def two_tasks_a_step(done: T.Buffer((STEPS + 1, 2), "int32"), steps: T.int32) -> None:
    for step in range(steps + 1):
        for task in T.serial(2):
            if task == 0:
                if step < steps:
                    done[step, 0] = 1
            else:
                if step > 0:
                    done[step, 1] = 1


def run(module: tvm.runtime.Executable) -> list[list[int]]:
    done = tvm.runtime.tensor(np.zeros((STEPS + 1, 2), np.int32))
    module["kernel"](done, STEPS)
    return done.numpy().tolist()


def test_our_builds_are_right(host_target: tvm.target.Target) -> None:
    assert run(build_kernels({"kernel": two_tasks_a_step}, host_target)) == RIGHT


def test_the_pass_still_miscompiles(host_target: tvm.target.Target) -> None:
    module = tvm.IRModule({"kernel": two_tasks_a_step.with_attr("global_symbol", "kernel")})
    with tvm.transform.PassContext(opt_level=3, config=dict(PASS_CONFIG)):
        miscompiled = run(tvm.compile(module, target=host_target))
    assert miscompiled != RIGHT, "HoistIfThenElse is mended: stop disabling it in tir_kernels.build"
