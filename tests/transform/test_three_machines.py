"""PipelineHeads where the second stage enqueues kernels, before and expected; what a phone gets."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import tvm
from tvm import tirx
from tvm.script import tirx as T  # noqa: N812 - TVMScript's own spelling

from shadowattn_tvm.device.opencl.program import compile_opencl
from shadowattn_tvm.errors import CompileError
from shadowattn_tvm.transform import PipelineHeads, three_machine_prefill
from tests.tir_kernels.in_threads import sparse
from tests.transform.test_pipeline_heads import POOLED, module_of
from tir_kernels.adreno.transfer import COPY, upload
from tir_kernels.dl_tensors import CPU
from tir_kernels.features import GENERIC, NEON_DOTPROD
from tir_kernels.shadow.list_stages import ATTEND, PILOT, PIPELINE, STAGE
from tir_kernels.simd.handoff import FLAG_STRIDE, handoff
from tir_kernels.spec import PilotSpec

ITEMS = 64


@T.inline
def double(x: T.Buffer, out: T.Buffer, item: tirx.Var) -> None:
    """out[item] = 2 * x[item]: a kernel."""
    for i in T.thread_binding(ITEMS, thread="threadIdx.x"):
        out[item, i] = x[item, i] * 2


def staged() -> tirx.PrimFunc:
    """out[i] = 2 * (i + 1) by way of the CPU's memory: a stage there, a copy and a kernel."""

    @T.prim_func(s_tir=True)
    def before(var_out: T.handle) -> None:
        T.func_attr({"tirx.is_scheduled": True})
        n = T.int32()
        out = T.match_buffer(var_out, (n, ITEMS), "int32")
        lists = T.alloc_buffer((n, ITEMS), "int32")
        with T.attr(0, "device_type", CPU):
            chosen = T.alloc_buffer((n, ITEMS), "int32")
            for item in T.parallel(n, annotations={PIPELINE: 1}):
                with T.attr(0, STAGE, PILOT):
                    for i in range(ITEMS):
                        chosen[item, i] = item + 1
                with T.attr(0, STAGE, ATTEND):
                    upload(chosen, lists, n * ITEMS)
                    double(lists, out, item)

    return before


def expected() -> tirx.PrimFunc:
    fences = handoff(NEON_DOTPROD.isa)
    assert fences is not None

    @T.prim_func(s_tir=True)
    def after(var_out: T.handle) -> None:
        T.func_attr({"tirx.is_scheduled": True})
        n = T.int32()
        out = T.match_buffer(var_out, (n, ITEMS), "int32")
        lists = T.alloc_buffer((n, ITEMS), "int32")
        with T.attr(0, "device_type", CPU):
            chosen = T.alloc_buffer((n, ITEMS), "int32")
            num_items = T.bind(n)
            ready = T.alloc_buffer((num_items * FLAG_STRIDE,), "int32")
            for item in range(num_items):
                ready[item * FLAG_STRIDE] = 0
            for task in T.parallel(2):
                if task == 0:
                    for item in range(num_items):
                        for i in range(ITEMS):
                            chosen[item, i] = item + 1
                        T.evaluate(fences.release())
                        ready[item * FLAG_STRIDE] = 1
                else:
                    for turn in range(num_items - task + 1):
                        mine = T.bind(task - 1 + turn * 1)
                        while ready[mine * FLAG_STRIDE] == 0:
                            T.evaluate(fences.pause())
                        T.evaluate(fences.acquire())
                        upload(chosen, lists, n * ITEMS)
                        double(lists, out, mine)

    return after


def test_kernels_are_enqueued_by_the_cpus_task() -> None:
    after = PipelineHeads(1, NEON_DOTPROD)(module_of(staged()))
    tvm.ir.assert_structural_equal(after, module_of(expected()))
    assert tirx.analysis.verify_well_formed(after["kernel"])
    assert tirx.analysis.verify_ssa(after["kernel"])
    program = compile_opencl(after["kernel"], "kernel")
    npu, cpu = tasks(program.host)
    assert (calls(npu), calls(cpu)) == ([], [COPY, "kernel_kernel"])


def tasks(host: tirx.PrimFunc) -> tuple[tirx.Stmt, tirx.Stmt]:
    """What the NPU's thread does, and the CPU's; there is one launch of threads."""
    (loop,) = found(
        host.body, lambda node: isinstance(node, tirx.For) and node.kind == tirx.ForKind.PARALLEL
    )
    return loop.body.then_case, loop.body.else_case


def calls(statement: tirx.Stmt) -> list[str]:
    """Names of the packed functions that host code calls, in its order."""
    packed = found(
        statement,
        lambda node: isinstance(node, tvm.ir.Call) and str(node.op.name) == "tirx.tvm_call_packed",
    )
    return [str(call.args[0].value) for call in packed]


def found(statement: tirx.Stmt, wanted: Callable[[object], bool]) -> list[tvm.ir.Node]:
    nodes: list[tvm.ir.Node] = []
    tirx.stmt_functor.post_order_visit(
        statement, lambda node: nodes.append(node) if wanted(node) else None
    )
    return nodes


def test_what_a_phone_gets() -> None:
    """For aarch64 and an Adreno."""
    kernel = three_machine_prefill(sparse(POOLED), NEON_DOTPROD)
    assert tirx.analysis.verify_well_formed(kernel)
    assert tirx.analysis.verify_ssa(kernel)
    host = compile_opencl(kernel, "kernel").host
    npu, cpu = tasks(host)
    assert calls(npu) == [], "the NPU's thread touches no queue"
    copy, attend = calls(cpu)
    assert copy == COPY
    assert calls(host.body)[-1] == attend, "nobody waits for what was enqueued"
    assert "TVMFFIFunctionCall" in str(npu)


def test_what_has_no_third_machine() -> None:
    with pytest.raises(CompileError, match="selects for each query and head"):
        three_machine_prefill(sparse(PilotSpec()), NEON_DOTPROD)
    with pytest.raises(CompileError, match="x86-64 CPU with AVX2 or an aarch64 CPU"):
        three_machine_prefill(sparse(POOLED), GENERIC)
