"""The `_metadata` function: what a library says about itself, as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import tvm
from tvm import relax, tirx
from tvm.ir import Op
from tvm.relax.expr_functor import PyExprVisitor, visitor


@tvm.transform.module_pass(opt_level=0, name="AttachMetadata")
class AttachMetadata:
    """Add `_metadata() -> str`: the given object plus `memory_usage`, the bytes of temporary
    storage each function plans (MLC's engine reads it to size the KV cache).

    Precondition: after `StaticPlanBlockMemory`.
    """

    def __init__(self, metadata: Mapping[str, Any]) -> None:
        self.metadata = metadata

    def transform_module(
        self, module: tvm.IRModule, _context: tvm.transform.PassContext
    ) -> tvm.IRModule:
        document = {**self.metadata, "memory_usage": planned_memory_bytes(module)}
        builder = relax.BlockBuilder()
        with builder.function("_metadata", params=[]):
            builder.emit_func_output(relax.StringImm(json.dumps(document)))
        result = module.clone()
        result["_metadata"] = builder.finalize()["_metadata"]
        return result


def planned_memory_bytes(module: tvm.IRModule) -> dict[str, int]:
    """Bytes of statically sized storage each Relax function allocates."""
    usage = {}
    for global_var, function in module.functions_items():
        if isinstance(function, relax.Function):
            estimator = _Estimator()
            estimator.visit_expr(function)
            usage[global_var.name_hint] = estimator.total_bytes
    return usage


@visitor
class _Estimator(PyExprVisitor):
    def __init__(self) -> None:
        super().__init__()
        self.total_bytes = 0
        self.alloc_tensor = Op.get("relax.builtin.alloc_tensor")
        self.alloc_storage = Op.get("relax.memory.alloc_storage")

    def visit_call_(self, call: relax.Call) -> None:
        super().visit_call_(call)
        if call.op == self.alloc_storage:
            self.total_bytes += _static_product(call.args[0])
        elif call.op == self.alloc_tensor:
            dtype = tvm.DataType(call.args[1].value)
            element_bytes = (dtype.bits * dtype.lanes + 7) // 8
            self.total_bytes += _static_product(call.args[0]) * element_bytes


def _static_product(shape: relax.Expr) -> int:
    """Elements of a shape; 0 where an extent is only known at run time."""
    total = 1
    for extent in shape.values:
        if not isinstance(extent, tirx.IntImm):
            return 0
        total *= int(extent)
    return total
