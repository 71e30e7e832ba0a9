"""The host code of a compiled PrimFunc, run: which kernels are launched, on what, how large.

It does what TVM's runtime would: binds shapes and offsets from the arguments, checks assertions,
allocates workspaces, and launches one kernel after the other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from tvm import tirx

from ...errors import ShadowAttnError
from .expressions import Number, evaluate
from .program import OpenClProgram

Buffer = Any  # an OpenCL buffer

_AXES = ("x", "y", "z")


class Device(Protocol):
    """What the host code asks of a device."""

    def allocate(self, num_bytes: int) -> Buffer:
        """A workspace, its contents undefined."""

    def launch(
        self,
        kernel: str,
        arguments: Sequence[Buffer | np.generic],
        groups: Sequence[int],
        items: Sequence[int],
    ) -> None:
        """Enqueue a kernel of so many work-groups of so many work-items, three axes each."""


@dataclass(frozen=True)
class Placed:
    """A tensor argument on the device: its shape, and where in `buffer` it begins (elements)."""

    buffer: Buffer
    shape: tuple[int, ...]
    offset: int = 0


class HostCode:
    """One call of a program's host function."""

    def __init__(self, program: OpenClProgram, device: Device) -> None:
        self.program = program
        self.device = device
        self.buffers: dict[Any, Buffer] = {}
        self.values: dict[Any, Number] = {}

    def run(self, arguments: Sequence[Placed | Number]) -> None:
        """`arguments` in the order of the PrimFunc's parameters.

        Raises `ShadowAttnError` if an assertion of the host code fails.
        """
        for parameter, argument in zip(self.program.host.params, arguments, strict=True):
            if isinstance(argument, Placed):
                self._bind(parameter, argument)
            else:
                self.values[parameter] = argument
        self._run(self.program.host.body)

    def _bind(self, parameter: Any, argument: Placed) -> None:
        self.buffers[parameter] = argument.buffer
        if isinstance(parameter.elem_offset, tirx.Var):
            self.values[parameter.elem_offset] = argument.offset
        for dimension, length in zip(parameter.shape, argument.shape, strict=True):
            if isinstance(dimension, tirx.Var):
                self.values.setdefault(dimension, length)

    def _run(self, statement: Any) -> None:
        """What a statement does; dispatched by its type."""
        if isinstance(statement, tirx.SeqStmt):
            for part in statement.seq:
                self._run(part)
        elif isinstance(statement, tirx.For):
            first = int(evaluate(statement.min, self.values))
            for index in range(first, first + int(evaluate(statement.extent, self.values))):
                self.values[statement.loop_var] = index
                self._run(statement.body)
        elif isinstance(statement, tirx.IfThenElse):
            taken = evaluate(statement.condition, self.values)
            chosen = statement.then_case if taken else statement.else_case
            if chosen is not None:
                self._run(chosen)
        elif isinstance(statement, tirx.AttrStmt):
            self._run(statement.body)
        elif isinstance(statement, tirx.Bind):
            self.values[statement.var] = evaluate(statement.value, self.values)
        elif isinstance(statement, tirx.DeclBuffer):
            self.buffers[statement.buffer] = self.buffers[_owner(statement.data)]
        elif isinstance(statement, tirx.AllocBuffer):
            self._allocate(statement.buffer)
        elif isinstance(statement, tirx.AssertStmt):
            if not evaluate(statement.condition, self.values):
                message = "".join(str(part.value) for part in statement.message_parts)
                raise ShadowAttnError(f"the kernel refuses its arguments: {message}")
        elif isinstance(statement, tirx.Evaluate):
            self._launch(statement.value)
        else:
            raise NotImplementedError(f"host statement {type(statement).__name__}")

    def _allocate(self, buffer: Any) -> None:
        elements = math.prod(int(evaluate(length, self.values)) for length in buffer.shape)
        self.buffers[buffer] = self.device.allocate(elements * np.dtype(str(buffer.dtype)).itemsize)

    def _launch(self, call: Any) -> None:
        if not hasattr(call, "args") or not call.args:
            return  # what a removed statement left behind
        kernel, *rest = call.args
        name = str(kernel.value)
        count = len(self.program.kernel_parameters[name])
        arguments = [self._argument(argument) for argument in rest[:count]]
        sizes = [int(evaluate(extent, self.values)) for extent in rest[count:]]
        extents = dict(zip(self.program.launch_tags[name], sizes, strict=True))
        groups = [extents.get(f"blockIdx.{axis}", 1) for axis in _AXES]
        items = [extents.get(f"threadIdx.{axis}", 1) for axis in _AXES]
        if 0 not in groups:
            self.device.launch(name, arguments, groups, items)

    def _argument(self, argument: Any) -> Buffer | np.generic:
        owner = _owner(argument)
        if owner is not None and owner in self.buffers:
            return self.buffers[owner]
        value = evaluate(argument, self.values)
        return np.dtype(str(argument.ty)).type(value)


def _owner(data: Any) -> Any:
    """The buffer whose memory an expression is; None if it is none's."""
    arguments: Sequence[Any] = getattr(data, "args", ())
    return arguments[0] if len(arguments) == 1 and isinstance(arguments[0], tirx.Var) else None
