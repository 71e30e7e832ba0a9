"""The host code of a program, compiled for this machine: its threads and its order are real.

TVM's wheel has no OpenCL runtime that host code could call. So the calls that would reach it, of
kernels and of copies, go to two functions of this process instead, which enqueue on an OpenCL
device that shares this machine's memory. Everything else is what a phone's library has: the same
TIR, by LLVM, on TVM's thread pool.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import tvm
import tvm_ffi
from tvm import tirx
from tvm.tirx.stmt_functor import ir_transform
from tvm_ffi.registry import remove_global_func

from tir_kernels.adreno.transfer import COPY
from tir_kernels.build import pass_context

from ...errors import ShadowAttnError
from .half_storage import with_half_storage
from .program import OpenClProgram

_LAUNCH_NAME, _COPY_NAME = "shadowattn.opencl.launch", "shadowattn.opencl.copy"

_AXES = ("x", "y", "z")


@dataclass(frozen=True)
class Enqueued:
    """A kernel's launch.

    Attributes
    ----------
    scalars : its arguments that are no memory, by parameter.
    event : pyopencl's, with times of the device's clock in ns.
    """

    kernel: str
    scalars: Mapping[str, int | float]
    event: Any


class SharedMemoryQueue:
    """An in-order queue of a device that reads this process's memory where it lies, as OpenCL's CPU
    devices do; events have times.

    Raises `ShadowAttnError` for a device that has no shared virtual memory.
    """

    def __init__(self, context: Any) -> None:
        import pyopencl

        device = context.devices[0]
        if not device.type & pyopencl.device_type.CPU or not device.svm_capabilities:
            raise ShadowAttnError(
                f"expected an OpenCL device that shares this machine's memory, got {device.name}"
            )
        self.opencl = pyopencl
        self.context = context
        self.queue = pyopencl.CommandQueue(
            context, properties=pyopencl.command_queue_properties.PROFILING_ENABLE
        )

    def load(self, program: OpenClProgram, host: tvm.target.Target) -> NativeHost:
        """`program`, its host code compiled for `host`, this machine's CPU."""
        return NativeHost(self, program, host)


class NativeHost:
    """A program as a function of TVM tensors in the CPU's memory, in the PrimFunc's order."""

    def __init__(
        self, owner: SharedMemoryQueue, program: OpenClProgram, host: tvm.target.Target
    ) -> None:
        self.owner = owner
        self.program = program
        source = with_half_storage(program.source)
        built = owner.opencl.Program(owner.context, source).build()
        self.kernels = {
            name: owner.opencl.Kernel(built, name) for name in program.kernel_parameters
        }
        self.scalars = dict[str, tuple[str | None, ...]]()
        function = program.host.with_body(self._rerouted(program.host.body))
        name = str(function.attrs["global_symbol"])
        module = tvm.IRModule({name: function.with_attr("target", host.with_host(host))})
        with pass_context():
            self.function = tvm.tirx.build(module, target=host, pipeline="default")[name]

    def __call__(
        self, *arguments: Any, enqueued: Callable[[Enqueued], None] | None = None
    ) -> tuple[Enqueued, ...]:
        """Call it, wait for the queue, and return all launches in their order. `enqueued` is told
        of each when it is in the queue, by the thread that put it there."""
        launches: list[Enqueued] = []

        def launch(name: str, *values: Any) -> None:
            launches.append(self._launch(name, values))
            if enqueued is not None:
                enqueued(launches[-1])

        with _registered({_LAUNCH_NAME: launch, _COPY_NAME: self._copy}):
            try:
                self.function(*arguments)
            finally:
                self.owner.queue.finish()
        return tuple(launches)

    def _rerouted(self, body: tirx.Stmt) -> tirx.Stmt:
        """The host code with kernels and copies going to this process's functions."""

        def reroute(statement: tirx.Evaluate) -> tirx.Stmt | None:
            call = statement.value
            if not isinstance(call, tvm.ir.Call) or str(call.op.name) != "tirx.tvm_call_packed":
                return None
            name, *rest = call.args
            if name.value == COPY:
                return tirx.Evaluate(tirx.call_packed(_COPY_NAME, *rest))
            kernel = str(name.value)
            parameters = rest[: len(self.program.kernel_parameters[kernel])]
            self.scalars[kernel] = tuple(_scalar_dtype(value) for value in parameters)
            return tirx.Evaluate(tirx.call_packed(_LAUNCH_NAME, name, *rest))

        return ir_transform(body, None, reroute, ["tirx.Evaluate"])

    def _launch(self, name: str, values: Sequence[Any]) -> Enqueued:
        dtypes, opencl, queue = self.scalars[name], self.owner.opencl, self.owner.queue
        named = zip(self.program.kernel_parameters[name], values, dtypes, strict=False)
        scalars = {name: value for name, value, dtype in named if dtype is not None}
        extents = dict(zip(self.program.launch_tags[name], values[len(dtypes) :], strict=True))
        groups = tuple(extents.get(f"blockIdx.{axis}", 1) for axis in _AXES)
        items = tuple(extents.get(f"threadIdx.{axis}", 1) for axis in _AXES)
        if 0 in groups:
            return Enqueued(name, scalars, opencl.enqueue_marker(queue))
        self.kernels[name].set_args(
            *(
                self._memory(value) if dtype is None else np.dtype(dtype).type(value)
                for value, dtype in zip(values, dtypes, strict=False)
            )
        )
        sizes = tuple(g * i for g, i in zip(groups, items, strict=True))
        event = opencl.enqueue_nd_range_kernel(queue, self.kernels[name], sizes, items)
        queue.flush()
        return Enqueued(name, scalars, event)

    def _memory(self, pointer: ctypes.c_void_p | None) -> Any:
        """Memory of this process from `pointer` on, as an argument of a kernel."""
        if pointer is None or not pointer.value:
            return None  # a tensor without elements
        first = (ctypes.c_uint8 * 1).from_address(pointer.value)
        return self.owner.opencl.SVM(np.ctypeslib.as_array(first))

    def _copy(self, source: tvm_ffi.Tensor, target: tvm_ffi.Tensor) -> None:
        """As TVM's OpenCL runtime does: behind everything enqueued, and waited for."""
        self.owner.queue.finish()
        num_bytes = source.numel() * source.dtype.itemsize
        ctypes.memmove(target.data_ptr(), source.data_ptr(), num_bytes)


def _scalar_dtype(value: Any) -> str | None:
    """The dtype of a kernel's argument; None for a pointer."""
    return str(value.ty) if isinstance(value.ty, tvm.ir.PrimType) else None


@contextmanager
def _registered(functions: dict[str, Callable[..., None]]) -> Iterator[None]:
    """Functions that the runtime finds by name, for a while."""
    for name, function in functions.items():
        tvm_ffi.register_global_func(name, function, override=True)
    try:
        yield
    finally:
        for name in functions:
            remove_global_func(name)
