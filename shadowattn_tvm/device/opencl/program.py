"""A PrimFunc compiled for OpenCL, taken apart: kernel sources, and the host code that starts them.

The `apache-tvm` wheel generates OpenCL but can't run it. What it would run is all there: the source
of the kernels, and a host function that allocates workspaces and launches kernels with extents.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import tvm
from tvm import tirx

from tir_kernels.build import pass_context

from ...compiler.targets import resolve_device

ADRENO = "android:adreno"
"""The device that kernels are compiled for where no target is given."""

_LAST_PLAIN_PASS = "tirx.MakePackedAPI"
"""Before it, host functions still have their buffers as parameters."""

_LAUNCH_PARAMETERS = "tirx.kernel_launch_params"


@dataclass(frozen=True)
class OpenClProgram:
    """What a PrimFunc became.

    Attributes
    ----------
    source : OpenCL C of all kernels.
    host : allocates, loops and launches; a PrimFunc whose parameters are the original's.
    kernel_parameters : kernel -> names of its parameters, buffers first.
    launch_tags : kernel -> the thread axes whose extents follow the arguments of a launch.
    """

    source: str
    host: tirx.PrimFunc
    kernel_parameters: dict[str, tuple[str, ...]]
    launch_tags: dict[str, tuple[str, ...]]


@tvm.instrument.pass_instrument
class _KeepPlainModule:
    """Keeps the module as it is before host functions get the packed calling convention."""

    def __init__(self) -> None:
        self.module: tvm.IRModule | None = None

    def run_before_pass(self, module: tvm.IRModule, info: Any) -> None:
        if info.name == _LAST_PLAIN_PASS:
            self.module = module


def compile_opencl(
    function: tirx.PrimFunc,
    name: str,
    target: tvm.target.Target | None = None,
    context: tvm.transform.PassContext | None = None,
) -> OpenClProgram:
    """Compile `function` as it is compiled for a phone, by default with the context all our kernels
    have."""
    target = resolve_device(ADRENO).target if target is None else target
    module = tvm.IRModule({name: function.with_attr("global_symbol", name)})
    plain = _KeepPlainModule()
    ours = pass_context() if context is None else context
    with tvm.transform.PassContext(
        opt_level=ours.opt_level,
        disabled_pass=ours.disabled_pass,
        config=ours.config,
        instruments=[plain],
    ):
        # the pipeline named "adreno" doesn't run in TVM 0.26
        built = tvm.tirx.build(module, target=target, pipeline="default")
    assert plain.module is not None, f"{_LAST_PLAIN_PASS} didn't run"
    parameters: dict[str, tuple[str, ...]] = {}
    tags: dict[str, tuple[str, ...]] = {}
    for global_var, kernel in plain.module.functions_items():
        if _LAUNCH_PARAMETERS in kernel.attrs:
            parameters[global_var.name_hint] = tuple(str(p.name) for p in kernel.params)
            tags[global_var.name_hint] = tuple(map(str, kernel.attrs[_LAUNCH_PARAMETERS]))
    source = "".join(str(imported.inspect_source()) for imported in built.imports)
    return OpenClProgram(source, plain.module[name], parameters, tags)
