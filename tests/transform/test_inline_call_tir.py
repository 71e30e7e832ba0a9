"""InlineCallTIR, before and after: a Relax function of kernels becomes one PrimFunc."""

from __future__ import annotations

import numpy as np
import tvm
from tvm import relax, tirx
from tvm.script import tirx as T  # noqa: N812 - TVMScript's own spelling

from shadowattn_tvm.transform import WORKSPACE_BYTES, InlineCallTIR


def add(amount: int, name: str) -> tirx.PrimFunc:
    @T.prim_func(s_tir=True)
    def kernel(var_x: T.handle, var_y: T.handle) -> None:
        T.func_attr({"tirx.is_scheduled": True, "global_symbol": name})
        x = T.match_buffer(var_x, (5,), "int32")
        y = T.match_buffer(var_y, (5,), "int32")
        for i in range(5):
            y[i] = x[i] + amount

    return kernel


def split() -> tirx.PrimFunc:
    """Two outputs: 3 x, and -x."""

    @T.prim_func(s_tir=True)
    def kernel(var_x: T.handle, var_y: T.handle, var_z: T.handle) -> None:
        T.func_attr({"tirx.is_scheduled": True, "global_symbol": "split"})
        x = T.match_buffer(var_x, (5,), "int32")
        y = T.match_buffer(var_y, (5,), "int32")
        z = T.match_buffer(var_z, (5,), "int32")
        for i in range(5):
            y[i] = 3 * x[i]
            z[i] = -x[i]

    return kernel


def before(stages: int, output: int) -> tvm.IRModule:
    """x through `stages` additions of 10, then split; the result is one of its outputs."""
    ints = relax.TensorType((5,), "int32")
    x = relax.Var("x", ints)
    builder = relax.BlockBuilder()
    with builder.function("main", [x]):
        with builder.dataflow():
            value = x
            for stage in range(stages):
                kernel = builder.add_func(add(10, f"add{stage}"), f"add{stage}")
                value = builder.emit(relax.call_tir(kernel, [value], ints))
            pair = builder.emit(
                relax.call_tir(builder.add_func(split(), "split"), [value], [ints, ints])
            )
            result = builder.emit_output(pair[output])
        builder.emit_func_output(result)
    return builder.finalize()


def test_stages_follow_each_other_and_share_a_workspace() -> None:
    for stages in (0, 1, 3):
        for output, expected in ((0, lambda x: 3 * x), (1, lambda x: -x)):
            module = InlineCallTIR("main", "graph")(before(stages, output))
            assert [g.name_hint for g in module.get_global_vars()] == ["graph"]
            function = module["graph"]
            # the other output, and what passes between stages, each padded to 128 bytes
            workspace_bytes = 128 * (stages + 1)
            assert int(function.attrs[WORKSPACE_BYTES]) == workspace_bytes
            assert [p.name for p in function.params] == ["x", "result", "workspace"]
            library = tvm.compile(
                tvm.IRModule({"graph": function.with_attr("global_symbol", "graph")}), "llvm"
            )
            x = np.arange(5, dtype=np.int32)
            tensors = [tvm.runtime.tensor(a) for a in (x, np.empty_like(x))]
            library["graph"](*tensors, tvm.runtime.tensor(np.empty(workspace_bytes, np.uint8)))
            np.testing.assert_array_equal(tensors[1].numpy(), expected(x + 10 * stages))


def test_without_intermediates_there_is_no_workspace() -> None:
    ints = relax.TensorType((5,), "int32")
    x = relax.Var("x", ints)
    builder = relax.BlockBuilder()
    with builder.function("main", [x]):
        with builder.dataflow():
            call = relax.call_tir(builder.add_func(add(1, "add"), "add"), [x], ints)
            result = builder.emit_output(call)
        builder.emit_func_output(result)
    function = InlineCallTIR("main", "graph")(builder.finalize())["graph"]
    assert int(function.attrs[WORKSPACE_BYTES]) == 0

    # the kernel's own statements follow the declarations of its buffers
    kernel = add(1, "add")
    assert [p.name for p in function.params] == ["x", "result"]
    declarations, body = function.body.seq[:-1], function.body.seq[-1]
    assert [d.buffer.name for d in declarations] == ["x", "y"]
    tvm.ir.assert_structural_equal(body, kernel.body, map_free_vars=True)
