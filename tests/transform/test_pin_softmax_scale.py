"""Kernels that stay TVM's get the scale as a constant; others stay as they are."""

from __future__ import annotations

import tvm
from tvm.script import tirx as T  # noqa: N812 - TVMScript's own spelling

from shadowattn_tvm.transform import PinSoftmaxScale


@T.prim_func(s_tir=True)
def scaled(x: T.Buffer((4,), "float32"), sm_scale: T.float32) -> None:
    for i in range(4):
        with T.sblock("scale"):
            vi = T.axis.spatial(4, i)
            x[vi] = x[vi] * sm_scale


@T.prim_func(s_tir=True)
def expected(x: T.Buffer((4,), "float32"), sm_scale: T.float32) -> None:
    for i in range(4):
        with T.sblock("scale"):
            vi = T.axis.spatial(4, i)
            x[vi] = x[vi] * T.float32(0.125)


@T.prim_func(s_tir=True)
def other(x: T.Buffer((4,), "float32"), scale: T.float32) -> None:
    for i in range(4):
        with T.sblock("scale"):
            vi = T.axis.spatial(4, i)
            x[vi] = x[vi] * scale


def test_before_and_after() -> None:
    after = PinSoftmaxScale(0.125)(tvm.IRModule({"scaled": scaled, "other": other}))
    pinned = expected.with_attr("global_symbol", "scaled")
    tvm.ir.assert_structural_equal(after, tvm.IRModule({"scaled": pinned, "other": other}))
    tvm.tirx.analysis.verify_well_formed(after)  # raises if not
