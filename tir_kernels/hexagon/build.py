"""PrimFuncs to plain C functions for Hexagon: our own short pipeline.

`tvm.compile` for a `hexagon` target asks for a runtime on the DSP, and in TVM 0.26 it fails (it
leaves `tvm_call_packed` behind). Kernels that allocate nothing larger than registers need none of
it: their buffers become pointers, and LLVM does the rest.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tvm
from tvm import s_tir, tirx
from tvm.tirx.buffer import BufferType

from .hvx import VECTOR_BYTES

HEXAGON_VERSIONS = ("v66", "v68", "v73", "v75")
"""v66 is what the emulator runs; the others are in phones: Snapdragon 888, 8 Gen 2, 8 Gen 3."""

ALIGNMENT_BYTES = VECTOR_BYTES
"""Of every buffer that is handed over: a whole vector's."""

_CPU = 1  # kDLCPU: small allocations are put on the stack


@dataclass(frozen=True)
class HexagonObject:
    """Compiled kernels.

    Attributes
    ----------
    elf : a relocatable object.
    library : TVM's module that it was written from.
    """

    elf: bytes
    library: Any

    @property
    def assembly(self) -> str:
        """What the object is made of, for tests and for people: generated anew, as long as the
        object took."""
        return str(self.library.inspect_source("s"))


def hexagon_target(version: str) -> tvm.target.Target:
    """LLVM's target of a DSP version. v68 and later have float vectors of their own kind, which
    the kernels don't use and which no attribute here turns on."""
    target = tvm.target.Target(
        {
            "kind": "llvm",
            "mtriple": "hexagon-unknown-none-elf",
            "mcpu": f"hexagon{version}",
            "mattr": [f"+hvx{version}", "+hvx-length128b"],
        }
    )
    return tvm.target.Target(target, target)


def build_object(functions: Mapping[str, tirx.PrimFunc], version: str) -> HexagonObject:
    """Compile to `int name(pointers to the buffers, scalars...)`, which returns 0."""
    target = hexagon_target(version)
    module = tvm.IRModule(
        {name: function.with_attr("global_symbol", name) for name, function in functions.items()}
    )
    with tvm.transform.PassContext(opt_level=3):
        module = tvm.transform.Sequential(_to_loops(target))(module)
        module = tvm.IRModule({name: _plain_c(f) for name, f in module.functions.items()})
        module = tvm.transform.Sequential(_to_llvm())(module)
        library: Any = tvm.get_global_func("target.build.llvm")(module, target)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernels.o"
        library.write_to_file(str(path), "o")
        return HexagonObject(path.read_bytes(), library)


def _to_loops(target: tvm.target.Target) -> list[tvm.transform.Pass]:
    return [
        tirx.transform.BindTarget(target),
        s_tir.transform.CanonicalizeLoop(),
        s_tir.transform.LowerInitBlock(),
        s_tir.transform.PlanAndUpdateBufferAllocationLocation(),
        s_tir.transform.ConvertBlocksToOpaque(),
        s_tir.transform.LowerMatchBuffer(),
        s_tir.transform.LowerOpaqueBlock(),
        tirx.transform.FlattenBuffer(),
        tirx.transform.VectorizeLoop(True),
        tirx.transform.UnrollLoop(),
        tirx.transform.StmtSimplify(),
        tirx.transform.RemoveNoOp(),
    ]


def _to_llvm() -> list[tvm.transform.Pass]:
    return [tirx.transform.LowerTVMBuiltin(), tirx.transform.LowerIntrin()]


def _plain_c(function: tirx.PrimFunc) -> tirx.PrimFunc:
    """Buffers as pointers, an int32 for a result."""
    parameters, pointers, declarations = [], [], []
    for parameter in function.params:
        if isinstance(parameter.ty, BufferType):
            element = tvm.ir.PrimType(str(parameter.ty.dtype))
            pointer = tvm.ir.Var(f"{parameter.name}_data", tvm.ir.PointerType(element, "global"))
            declarations.append(tirx.DeclBuffer(parameter, data=pointer))
            parameters.append(pointer)
            pointers.append(pointer)
        else:
            parameters.append(parameter)
    body = tirx.SeqStmt([*declarations, function.body])
    # LowerTVMBuiltin wants to know whose memory it allocates.
    for key, value in (("device_type", _CPU), ("device_id", 0)):
        body = tirx.AttrStmt("default", key, tirx.IntImm("int32", value), body)
    for pointer in pointers:  # else vectors are loaded in two parts
        body = tirx.AttrStmt(
            pointer, "storage_alignment", tirx.IntImm("int32", ALIGNMENT_BYTES), body
        )
    body = tirx.SeqStmt([body, tirx.Return(tirx.IntImm("int32", 0))])
    return tirx.PrimFunc(parameters, body, tvm.ir.PrimType("int32"), function.attrs)
