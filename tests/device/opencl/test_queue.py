"""The runner itself: offsets, workspaces, loops and branches of host code, refusals."""

from __future__ import annotations

import numpy as np
import pytest
from tvm import tirx
from tvm.script import tirx as T  # noqa: N812 - TVMScript's own spelling

from shadowattn_tvm.device.opencl.expressions import evaluate
from shadowattn_tvm.device.opencl.program import compile_opencl
from shadowattn_tvm.device.opencl.queue import OpenClQueue, find_device
from shadowattn_tvm.errors import ShadowAttnError


def in_two_launches() -> tirx.PrimFunc:
    """`output[i] = 2 * x[i] + addends[1] + (1 if wanted)`, two rows a turn, by way of a workspace
    and of half-precision input."""

    @T.prim_func(s_tir=True)
    def two_launches(
        var_x: T.handle,
        var_addends: T.handle,
        var_output: T.handle,
        wanted: T.int32,
        scale: T.float32,
    ) -> None:
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
        n, m, addends_at = T.int32(), T.int32(), T.int32()
        x = T.match_buffer(var_x, (n, 4), "float16")
        addends = T.match_buffer(var_addends, (m,), "int32", elem_offset=addends_at)
        output = T.match_buffer(var_output, (n, 4), "float32")
        assert T.Cast("int32", T.floor(scale)) < 3, "no such layer"
        doubled = T.alloc_buffer((n, 4), "float32")
        for turn in range(T.ceildiv(n, 2)):
            for row in T.thread_binding(2, thread="blockIdx.x"):
                for item in T.thread_binding(4, thread="threadIdx.x"):
                    if turn * 2 + row < n:
                        doubled[turn * 2 + row, item] = T.Cast(
                            "float32", x[turn * 2 + row, item]
                        ) * T.float32(2)
        for row in T.thread_binding(n, thread="blockIdx.x"):
            for item in T.thread_binding(4, thread="threadIdx.x"):
                output[row, item] = doubled[row, item] + T.Cast("float32", addends[1])
        if wanted > 0:
            for row in T.thread_binding(n, thread="blockIdx.x"):
                for item in T.thread_binding(4, thread="threadIdx.x"):
                    output[row, item] = output[row, item] + T.float32(1)

    return two_launches


@pytest.mark.opencl
def test_host_code_is_followed() -> None:
    try:
        queue = OpenClQueue(find_device("portable computing language"))
    except ShadowAttnError as error:
        pytest.skip(str(error))
    call = queue.load(compile_opencl(in_two_launches(), "two_launches"))
    x = np.arange(20, dtype=np.float16).reshape(5, 4)
    addends = np.array([7, 40, 9], np.int32)
    for wanted in (0, 1):
        output = np.full((5, 4), np.nan, np.float32)
        call(x, addends, output, wanted, 2.5)
        np.testing.assert_array_equal(output, 2 * x.astype(np.float32) + 40 + wanted)
    with pytest.raises(ShadowAttnError, match="no such layer"):
        call(x, addends, output, 0, 3.0)


def test_a_platform_that_is_missing() -> None:
    with pytest.raises(ShadowAttnError, match="make devices"):
        find_device("no vendor of this name")


def test_what_no_host_code_of_ours_has() -> None:
    with pytest.raises(NotImplementedError, match="StringImm"):
        evaluate(tirx.StringImm("text"), {})
    x = tirx.Var("x", "int32")
    assert evaluate(tirx.if_then_else(x < 3, tirx.floordiv(x + 5, 2), 0), {x: 2}) == 3
