"""Running compiled PrimFuncs on an OpenCL device, as pyopencl finds it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from tvm import tirx

from ...errors import ShadowAttnError
from .half_storage import with_half_storage
from .host import HostCode, Placed
from .program import OpenClProgram

Array = npt.NDArray[Any]

_HALF = "cl_khr_fp16"
_BEFORE_ELEMENTS = 3
"""Elements of other memory before tensors whose offset is an argument: views of larger ones."""

_GARBAGE_BYTE = 0x7F
"""Workspaces hold it before a kernel writes: large integers, NaNs as halfs, huge floats."""


def find_device(platform: str | None = None) -> Any:
    """A pyopencl context of the first device of the platform whose name contains `platform`.

    Raises `ShadowAttnError` if there is none, saying how to get one.
    """
    try:
        import pyopencl
    except ImportError as error:
        raise ShadowAttnError("pyopencl isn't installed: run `make devices`") from error
    try:
        platforms = pyopencl.get_platforms()
    except pyopencl.LogicError:  # no platform at all
        platforms = []
    for found in platforms:
        if platform is None or platform.lower() in found.name.lower():
            devices = found.get_devices()
            if devices:
                return pyopencl.Context(devices[:1])
    names = ", ".join(found.name for found in platforms) or "none"
    raise ShadowAttnError(
        f"expected an OpenCL platform {platform or 'of any name'!r}, found {names}: run "
        "`make devices`"
    )


class OpenClQueue:
    """An in-order queue of one device, and the programs built for it."""

    def __init__(self, context: Any) -> None:
        import pyopencl

        self.opencl = pyopencl
        self.context = context
        self.queue = pyopencl.CommandQueue(context)
        self.has_half = _HALF in context.devices[0].extensions.split()

    def load(self, program: OpenClProgram) -> Callable[..., None]:
        """`program` as a function of the PrimFunc's parameters, in their order.

        Tensors are NumPy arrays, or TVM tensors of the CPU; all are copied to the device, and back
        after the last kernel.
        """
        source = program.source if self.has_half else with_half_storage(program.source)
        built = self.opencl.Program(self.context, source).build()
        kernels = {name: self.opencl.Kernel(built, name) for name in program.kernel_parameters}

        def call(*arguments: Any) -> None:
            _Call(self, program, kernels).run(arguments)

        return call


class _Call:
    """One call: its buffers live as long."""

    def __init__(self, owner: OpenClQueue, program: OpenClProgram, kernels: dict[str, Any]) -> None:
        self.owner = owner
        self.program = program
        self.kernels = kernels
        self.opencl = owner.opencl

    def run(self, arguments: Sequence[Any]) -> None:
        tensors = []
        placed: list[Placed | int | float] = []
        for parameter, argument in zip(self.program.host.params, arguments, strict=True):
            if isinstance(argument, int | float):
                placed.append(argument)
                continue
            array = argument if isinstance(argument, np.ndarray) else argument.numpy()
            tensors.append((argument, array, self._place(parameter, array)))
            placed.append(tensors[-1][2])
        HostCode(self.program, self).run(placed)
        for argument, array, place in tensors:
            back = np.empty(array.size + place.offset, array.dtype)
            self.opencl.enqueue_copy(self.owner.queue, back, place.buffer)
            result = back[place.offset :].reshape(array.shape)
            if isinstance(argument, np.ndarray):
                argument[...] = result
            else:
                argument.copyfrom(result)
        self.owner.queue.finish()

    def _place(self, parameter: Any, array: Array) -> Placed:
        """A copy on the device; in the middle of other memory where that is allowed."""
        offset = _BEFORE_ELEMENTS if isinstance(parameter.elem_offset, tirx.Var) else 0
        memory = np.empty(array.size + offset, array.dtype)
        memory.view(np.uint8)[:] = _GARBAGE_BYTE
        memory[offset:] = array.reshape(-1)
        return Placed(self._buffer(memory), array.shape, offset)

    def _buffer(self, memory: Array) -> Any:
        flags = self.opencl.mem_flags
        if memory.nbytes == 0:  # OpenCL has no empty buffers
            return self.opencl.Buffer(self.owner.context, flags.READ_WRITE, 1)
        return self.opencl.Buffer(
            self.owner.context, flags.READ_WRITE | flags.COPY_HOST_PTR, hostbuf=memory
        )

    def allocate(self, num_bytes: int) -> Any:
        return self._buffer(np.full(num_bytes, _GARBAGE_BYTE, np.uint8))

    def launch(
        self,
        kernel: str,
        arguments: Sequence[Any],
        groups: Sequence[int],
        items: Sequence[int],
    ) -> None:
        function = self.kernels[kernel]
        function.set_args(*arguments)
        sizes = tuple(g * i for g, i in zip(groups, items, strict=True))
        self.opencl.enqueue_nd_range_kernel(self.owner.queue, function, sizes, tuple(items))
