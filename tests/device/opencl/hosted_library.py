"""A library for a GPU whose kernels run on an OpenCL device, though TVM has no runtime for one.

The Relax VM and the runtime's paged KV cache run here, as in any library; every kernel they call
has become a function that is looked up by name, and runs its OpenCL on the device.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import tvm
from tvm import relax, tirx
from tvm.relax.expr_functor import PyExprMutator, mutator
from tvm_ffi.registry import remove_global_func

from shadowattn_tvm.compiler.link import link
from shadowattn_tvm.device.opencl.program import compile_opencl
from shadowattn_tvm.device.opencl.queue import OpenClQueue
from tir_kernels.build import gpu_pass_context, pass_context

_IS_HOST = "tirx.is_host_func"
"""TVM's attribute of PrimFuncs that compute shapes for the VM."""

_NUMBERS = itertools.count()
"""One for each library: functions are global in a process."""


@contextmanager
def hosted_library(
    module: tvm.IRModule,
    attention: dict[str, tirx.PrimFunc],
    queue: OpenClQueue,
    host: tvm.target.Target,
    path: Path,
) -> Iterator[set[str]]:
    """Write `path`, a library for `host` made of what `build_gpu_pipeline` left of a model, and of
    the attention kernels that its slots name. Gives the names of kernels that were run, as they
    are; ends with the `with`, after which the library can't be called."""
    prefix = f"opencl{next(_NUMBERS)}."
    functions = {gv.name_hint: function for gv, function in module.functions_items()}
    ours = {
        name: function
        for name, function in functions.items()
        if isinstance(function, tirx.PrimFunc) and not function.attrs.get(_IS_HOST, False)
    }
    seen: set[str] = set()
    for name, kernel in {**ours, **attention}.items():
        context = pass_context() if name in attention else gpu_pass_context()
        runner = _runner(name, kernel, context, queue, seen)
        tvm.register_global_func(prefix + name, runner, override=True)
    try:
        link(_host_executable(module, {*ours, *attention}, prefix, host), path)
        yield seen
    finally:
        for name in (*ours, *attention):
            remove_global_func(prefix + name)


def _runner(
    name: str,
    kernel: tirx.PrimFunc,
    context: tvm.transform.PassContext,
    queue: OpenClQueue,
    seen: set[str],
) -> Callable[..., None]:
    """`kernel` as a function of its parameters, compiled when it is first called."""
    loaded: list[Callable[..., None]] = []

    def run(*arguments: Any) -> None:
        if not loaded:
            loaded.append(queue.load(compile_opencl(kernel, name, context=context)))
        seen.add(name)
        loaded[0](*arguments)

    return run


def _host_executable(
    module: tvm.IRModule, names: set[str], prefix: str, host: tvm.target.Target
) -> relax.VMExecutable:
    caller = _ByName(module, names, prefix)
    kept = {}
    for global_var, function in module.functions_items():
        if isinstance(function, relax.Function):
            kept[global_var] = caller.visit_expr(function)
        elif global_var.name_hint not in names:
            kept[global_var] = function.without_attr("target")
    with host, pass_context():
        return tvm.compile(tvm.IRModule(kept), target=host, relax_pipeline=None)


@mutator
class _ByName(PyExprMutator):
    """Functions of the module, and external ones, become external ones of other names."""

    def __init__(self, module: tvm.IRModule, names: set[str], prefix: str) -> None:
        super().__init__(module)
        self.names = names
        self.prefix = prefix

    def visit_global_var_(self, global_var: tvm.ir.GlobalVar) -> relax.Expr:
        if global_var.name_hint in self.names:
            return relax.ExternFunc(self.prefix + global_var.name_hint)
        return global_var

    def visit_extern_func_(self, extern: relax.ExternFunc) -> relax.Expr:
        if str(extern.global_symbol) in self.names:
            return relax.ExternFunc(self.prefix + str(extern.global_symbol))
        return extern
