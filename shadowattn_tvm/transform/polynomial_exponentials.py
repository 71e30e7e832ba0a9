"""Exponentials that vectorize: no call of the C library for each element of an activation."""

from __future__ import annotations

import tvm
from tvm import tirx
from tvm.ir import Op
from tvm.tirx.stmt_functor import ir_transform

from tir_kernels.constants import LOG2_E
from tir_kernels.simd.vector import exp2

from .schedule_fallback import is_scheduled

_FLOAT32 = "float32"


@tvm.transform.module_pass(opt_level=0, name="PolynomialExponentials")
class PolynomialExponentials:
    """Replace float32 `exp` and `sigmoid` by the kernels' polynomial (see `exp2`: 1e-7 of relative
    error, within 2^-126 .. 2^127), which is arithmetic that LLVM runs in vectors.

    Functions marked `tirx.is_scheduled` are left alone. Precondition: after `LegalizeOps`.
    """

    def transform_module(
        self, module: tvm.IRModule, _context: tvm.transform.PassContext
    ) -> tvm.IRModule:
        result = module.clone()
        for global_var, function in module.functions_items():
            if isinstance(function, tirx.PrimFunc) and not is_scheduled(function):
                body = ir_transform(function.body, None, _replaced, ["ir.Call"])
                result[global_var] = function.with_body(body)
        return result


def _replaced(call: tirx.Call) -> tirx.PrimExpr | None:
    if str(call.ty.dtype) != _FLOAT32:
        return None
    if call.op.same_as(Op.get("tirx.exp")):
        return _exp(call.args[0])
    if call.op.same_as(Op.get("tirx.sigmoid")):
        one = tirx.const(1.0, _FLOAT32)
        return one / (one + _exp(-call.args[0]))
    return None


def _exp(x: tirx.PrimExpr) -> tirx.PrimExpr:
    octaves = tirx.Var("octaves", _FLOAT32)
    return tirx.Let(octaves, x * tirx.const(LOG2_E, _FLOAT32), exp2(octaves, 1))
