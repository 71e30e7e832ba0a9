"""How kernels are built: the one place that knows TVM 0.26's traps."""

from __future__ import annotations

from collections.abc import Mapping

import tvm
from tvm import tirx

DISABLED_PASSES = (
    # Miscompiles an `if` on a flag that an earlier statement of the same loop writes: it hoists
    # the test out of the loop. Regression test: tests/tir_kernels/test_hoist_if_then_else.py
    "s_tir.HoistIfThenElse",
    # Bounds the region each buffer is accessed in: time exponential in the nesting of run-time
    # extents (over four minutes for the shadowAttn kernel, which takes seconds without). Our
    # kernels allocate what they use, so there is nothing to compact.
    "s_tir.CompactBufferAllocation",
)

PASS_CONFIG = {
    # The TIR common-subexpression pass can leave dangling variables in host code (MLC-LLM
    # disables it for the same reason); LLVM does this work anyway.
    "tirx.disable_cse_tir": True,
    # Storage rewriting moves an allocation to the top of its scope, above the binding of the
    # variable its extent is made of. Small buffers become registers or stack in LLVM regardless.
    "tirx.disable_storage_rewrite": True,
}

SYSTEM_LIB_PREFIX = "system_lib_prefix"
"""TVM's attribute of modules that become a part of a system library."""


def pass_context() -> tvm.transform.PassContext:
    """The context everything of ours is compiled in."""
    return tvm.transform.PassContext(
        opt_level=3, disabled_pass=list(DISABLED_PASSES), config=dict(PASS_CONFIG)
    )


def gpu_pass_context() -> tvm.transform.PassContext:
    """The context of what TVM's GPU schedules are for. They count on the passes that are in our
    kernels' way (a schedule's tile is allocated as the whole matrix, and compacted), so GPU kernels
    of ours are compiled apart (see `build_opencl_kernels`)."""
    return tvm.transform.PassContext(opt_level=3, config={"tirx.disable_cse_tir": True})


def build_kernels(
    functions: Mapping[str, tirx.PrimFunc], target: tvm.target.Target
) -> tvm.runtime.Module:
    """Compile PrimFuncs into a runtime module; `module[name](tensors...)` calls one of them."""
    module = tvm.IRModule(
        {name: func.with_attr("global_symbol", name) for name, func in functions.items()}
    )
    with pass_context():
        return tvm.compile(module, target=target)


def build_opencl_kernels(
    functions: Mapping[str, tirx.PrimFunc],
    target: tvm.target.Target,
    *,
    system_lib_prefix: str | None = None,
) -> tvm.runtime.Module:
    """Compile PrimFuncs for an `opencl` target: host code for its host, which imports the source of
    all their kernels.

    With a prefix, be it empty, the host code is for a system library: linked into a program rather
    than loaded, found by symbols with that prefix.
    """
    prefix = system_lib_prefix or ""
    module = tvm.IRModule(
        {
            prefix + name: function.with_attr("global_symbol", prefix + name)
            for name, function in functions.items()
        }
    )
    if system_lib_prefix is not None:
        module = module.with_attr(SYSTEM_LIB_PREFIX, system_lib_prefix)
    with pass_context():
        # the pipeline named "adreno" doesn't run in TVM 0.26
        return tvm.tirx.build(module, target=target, pipeline="default")
