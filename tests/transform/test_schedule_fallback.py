"""What the fallback schedule does to functions without a kernel: same numbers, more threads."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
from tvm import relax, tirx

from shadowattn_tvm.transform.schedule_fallback import ScheduleFallback
from tir_kernels.build import build_kernels


def lowered(rows: int | str, width: int) -> tvm.IRModule:
    """An RMS norm, lowered and fused."""
    builder = relax.BlockBuilder()
    extent = tirx.Var(rows, "int64") if isinstance(rows, str) else rows
    x = relax.Var("x", relax.TensorType((extent, width), "float32"))
    weight = relax.Var("weight", relax.TensorType((width,), "float32"))
    with builder.function("main", [x, weight]):
        with builder.dataflow():
            y = builder.emit_output(relax.op.nn.rms_norm(x, weight, axes=-1, epsilon=1e-5))
        builder.emit_func_output(y)
    return relax.transform.LegalizeOps()(builder.finalize())


def parallel_loops(function: tirx.PrimFunc) -> int:
    count = 0

    def visit(node: object) -> None:
        nonlocal count
        count += isinstance(node, tirx.For) and node.kind == tirx.ForKind.PARALLEL

    tirx.stmt_functor.post_order_visit(function.body, visit)
    return count


def only_kernel(module: tvm.IRModule) -> tirx.PrimFunc:
    (kernel,) = (f for _, f in module.functions_items() if isinstance(f, tirx.PrimFunc))
    return kernel


@pytest.mark.parametrize(("rows", "parallel"), [("tokens", True), (1, False), (4096, True)])
def test_long_loops_are_parallel_and_short_ones_serial(rows: int | str, parallel: bool) -> None:
    kernel = only_kernel(ScheduleFallback()(lowered(rows, 64)))
    assert (parallel_loops(kernel) > 0) == parallel
    assert kernel.attrs["tirx.is_scheduled"]


def test_the_numbers_stay(host_target: tvm.target.Target) -> None:
    kernel = only_kernel(ScheduleFallback()(lowered("tokens", 64)))
    norm = build_kernels({"norm": kernel}, host_target)["norm"]
    rng = np.random.default_rng(0)
    x = rng.standard_normal((77, 64), dtype=np.float32)
    weight = rng.standard_normal(64, dtype=np.float32)
    y = tvm.runtime.tensor(np.full_like(x, np.nan))
    norm(tvm.runtime.tensor(x), tvm.runtime.tensor(weight), y)
    expected = x / np.sqrt((x.astype("d") ** 2).mean(-1, keepdims=True) + 1e-5) * weight
    np.testing.assert_allclose(y.numpy(), expected, rtol=1e-5, atol=1e-6)


def test_scheduled_functions_are_left_alone() -> None:
    module = lowered("tokens", 64)
    marked = {gv: f.with_attr("tirx.is_scheduled", True) for gv, f in module.functions_items()}
    before = tvm.IRModule(marked)
    tvm.ir.assert_structural_equal(ScheduleFallback()(before), before)
