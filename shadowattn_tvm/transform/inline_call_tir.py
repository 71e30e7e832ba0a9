"""A Relax function of kernel calls as one PrimFunc: for targets without a virtual machine."""

from __future__ import annotations

import math
from typing import Any

import tvm
from tvm import relax, tirx
from tvm.ir import Op

from tir_kernels.hexagon.build import ALIGNMENT_BYTES

WORKSPACE_BYTES = "shadowattn.workspace_bytes"
"""Attribute of the PrimFunc: what its last parameter has room for; 0 = there is no such one."""

_RESULT, _WORKSPACE = "result", "workspace"


@tvm.transform.module_pass(opt_level=0, name="InlineCallTIR")
class InlineCallTIR:
    """Turn the Relax function `entry` into the PrimFunc `symbol`, which is all that remains.

    Its parameters are the function's, then `result`, then, if there are intermediate tensors,
    `workspace`, uint8, in which these lie one after the other. The kernels' bodies follow in turn.

    Preconditions: `entry` consists of `call_tir`s of tensors of static shape, each PrimFunc is
    called once, and the result is a tensor that one of them makes.
    """

    def __init__(self, entry: str, symbol: str) -> None:
        self.entry = entry
        self.symbol = symbol

    def transform_module(
        self, module: tvm.IRModule, _context: tvm.transform.PassContext
    ) -> tvm.IRModule:
        return tvm.IRModule({self.symbol: _Inliner(module, module[self.entry]).inlined()})


class _Inliner:
    """Which tensor lies where, found out call by call.

    `places` maps a Relax variable to its tensors: one, or one an output of a call with several.
    """

    def __init__(self, module: tvm.IRModule, function: relax.Function) -> None:
        self.module = module
        self.function = function
        self.places: dict[relax.Var, list[Any]] = {}
        self.intermediates: list[tirx.Stmt] = []
        self.bodies: list[tirx.Stmt] = []
        self.pointers: list[tvm.ir.Var] = []
        self.workspace_bytes = 0
        element = tvm.ir.PrimType("uint8")
        self.workspace = tvm.ir.Var(_WORKSPACE, tvm.ir.PointerType(element, "global"))

    def inlined(self) -> tirx.PrimFunc:
        bindings = [b for block in self.function.body.blocks for b in block.bindings]
        parameters = [_buffer(p.name, p.ty) for p in self.function.params]
        for parameter, buffer in zip(self.function.params, parameters, strict=True):
            self.places[parameter] = [buffer.data]
        result = self.function.body.body
        aliases = {b.var: b.value for b in bindings if not isinstance(b.value, relax.Call)}
        index = 0
        while result in aliases:
            value = aliases[result]
            if isinstance(value, relax.TupleGetItem):
                index, value = value.index, value.tuple_value
            result = value
        result_buffer = _buffer(_RESULT, self.function.body.body.ty)
        for binding in bindings:
            if isinstance(binding.value, relax.Call):
                outputs = _tensor_types(binding.var.ty)
                self.places[binding.var] = [
                    result_buffer.data
                    if binding.var.same_as(result) and i == index
                    else self._intermediate(f"{binding.var.name}_{i}", ty)
                    for i, ty in enumerate(outputs)
                ]
                self._call(binding.value, self.places[binding.var])
            elif isinstance(binding.value, relax.TupleGetItem):
                item = binding.value
                self.places[binding.var] = [self.places[item.tuple_value][item.index]]
            else:
                self.places[binding.var] = self.places[binding.value]
        parameters.append(result_buffer)
        body = tirx.SeqStmt([*self.intermediates, _aligned(self.bodies, self.pointers)])
        if self.workspace_bytes:
            workspace = tirx.decl_buffer([self.workspace_bytes], "uint8", _WORKSPACE)
            parameters.append(workspace)
            body = tirx.SeqStmt([tirx.Bind(self.workspace, workspace.data), body])
        function = tirx.PrimFunc(parameters, body)
        return function.with_attrs(
            {
                "s_tir": True,
                "tirx.noalias": True,
                "tirx.is_scheduled": True,
                WORKSPACE_BYTES: self.workspace_bytes,
            }
        )

    def _intermediate(self, name: str, ty: relax.TensorType) -> tvm.ir.Var:
        """A pointer to a new tensor in the workspace."""
        pointer_type = tvm.ir.PointerType(tvm.ir.PrimType(str(ty.dtype)), "global")
        pointer = tvm.ir.Var(f"{name}_data", pointer_type)
        offset = tirx.IntImm("int32", self.workspace_bytes)
        address = tirx.call_intrin(
            pointer_type, "tirx.handle_add_byte_offset", self.workspace, offset
        )
        self.intermediates.append(tirx.Bind(pointer, address))
        self.pointers.append(pointer)
        size = math.prod(_extents(ty)) * tvm.DataType(str(ty.dtype)).itemsize
        self.workspace_bytes += -(-size // ALIGNMENT_BYTES) * ALIGNMENT_BYTES
        return pointer

    def _call(self, call: relax.Call, outputs: list[Any]) -> None:
        assert call.op.same_as(Op.get("relax.call_tir")), f"expected call_tir, got {call.op}"
        kernel, operands = call.args
        inputs = [self.places[operand][0] for operand in operands]
        callee = self.module[kernel]
        for parameter, pointer in zip(callee.params, [*inputs, *outputs], strict=True):
            self.bodies.append(tirx.DeclBuffer(parameter, data=pointer))
        self.bodies.append(callee.body)


def _aligned(bodies: list[tirx.Stmt], pointers: list[tvm.ir.Var]) -> tirx.Stmt:
    """The statements, told that what the pointers point to is aligned."""
    body = tirx.SeqStmt(bodies)
    for pointer in pointers:
        alignment = tirx.IntImm("int32", ALIGNMENT_BYTES)
        body = tirx.AttrStmt(pointer, "storage_alignment", alignment, body)
    return body


def _tensor_types(ty: relax.Type) -> list[relax.TensorType]:
    return list(ty.fields) if isinstance(ty, tvm.ir.TupleType) else [ty]


def _extents(ty: relax.TensorType) -> list[int]:
    return [int(extent) for extent in ty.shape]


def _buffer(name: str, ty: relax.TensorType) -> Any:
    return tirx.decl_buffer(_extents(ty), str(ty.dtype), name)
