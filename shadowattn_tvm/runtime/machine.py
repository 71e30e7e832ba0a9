"""Where a session's library runs: this machine, or one behind TVM RPC.

Both give the same small set of operations. Over RPC neither shapes nor lists of tensors can be
passed or returned, so there they are made, held and taken apart on the device.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import tvm
from tvm import relax, rpc
from tvm_ffi import Shape

from ..weights import ModelDirectory, iter_parameters

Weights = Mapping[str, tvm.runtime.Tensor]
"""A model's parameters by name, in memory."""


class Machine(Protocol):
    """What a session asks of the place its library runs at."""

    device: tvm.runtime.Device

    def load(self, library: Path) -> Any:
        """The library's module on a virtual machine of its own."""

    def has(self, module: Any, name: str) -> bool:
        """Whether a loaded module has a function."""

    def builtin(self, name: str) -> Callable[..., Any]:
        """A function of TVM's virtual machine, `vm.builtin.NAME`."""

    def shape(self, *extents: int) -> Any:
        """A shape, as functions over there take it."""

    def reshape(self, tensor: Any, extents: Sequence[int]) -> Any:
        """The same values in another shape."""

    def first(self, results: Any) -> Any:
        """The first of several results of a function."""

    def parameters(
        self, directory: ModelDirectory, names: Sequence[str], weights: Weights | None
    ) -> Any:
        """The parameters in this order; `weights` if they are loaded already. Raises
        `WeightsError`."""


class ThisMachine:
    """The CPU of this process."""

    def __init__(self) -> None:
        self.device = tvm.cpu()
        self._reshape = self.builtin("reshape")

    def load(self, library: Path) -> Any:
        """See `Machine`."""
        return relax.VirtualMachine(tvm.runtime.load_module(str(library)), self.device).module

    def has(self, module: Any, name: str) -> bool:
        """See `Machine`."""
        return bool(module.implements_function(name))

    def builtin(self, name: str) -> Callable[..., Any]:
        """See `Machine`."""
        function: Callable[..., Any] = tvm.get_global_func(f"vm.builtin.{name}")
        return function

    def shape(self, *extents: int) -> Any:
        """See `Machine`."""
        return Shape(extents)

    def reshape(self, tensor: Any, extents: Sequence[int]) -> Any:
        """See `Machine`."""
        return self._reshape(tensor, Shape(extents))

    def first(self, results: Any) -> Any:
        """See `Machine`."""
        return results[0]

    def parameters(
        self, directory: ModelDirectory, names: Sequence[str], weights: Weights | None
    ) -> Any:
        """See `Machine`."""
        loaded = load_weights(directory) if weights is None else weights
        return [loaded[name] for name in names]


class RemoteMachine:
    """A CPU behind RPC.

    Parameters
    ----------
    session : on the device.
    shares_files : whether the device sees this machine's files, as an emulated one does; library
        and weights are uploaded otherwise.
    """

    _IMMEDIATE = 0
    """To `make_shape`: the extent follows as it is."""

    def __init__(self, session: rpc.RPCSession, *, shares_files: bool) -> None:
        self.device = session.cpu(0)
        self._session = session
        self._shares_files = shares_files
        self._make_shape = self.builtin("make_shape")
        self._item = self.builtin("tuple_getitem")

    def load(self, library: Path) -> Any:
        """See `Machine`."""
        module = self._session.load_module(self._on_device(library))
        return relax.VirtualMachine(module, self.device).module

    def has(self, module: Any, name: str) -> bool:
        """See `Machine`."""
        try:
            module[name]
        except AttributeError:
            return False
        return True

    def builtin(self, name: str) -> Callable[..., Any]:
        """See `Machine`."""
        function: Callable[..., Any] = self._session.get_function(f"vm.builtin.{name}")
        return function

    def shape(self, *extents: int) -> Any:
        """See `Machine`."""
        codes = (part for extent in extents for part in (self._IMMEDIATE, extent))
        return self._make_shape(None, len(extents), *codes)

    def reshape(self, tensor: Any, extents: Sequence[int]) -> Any:
        """See `Machine`."""
        return tensor._create_view(tuple(extents), tensor.dtype)

    def first(self, results: Any) -> Any:
        """See `Machine`."""
        return self._item(results, 0)

    def parameters(
        self, directory: ModelDirectory, names: Sequence[str], weights: Weights | None
    ) -> Any:
        """See `Machine`. The device reads them from files by itself; of a real one only one model
        is held at a time."""
        assert weights is None, "weights in this process's memory are of no use to a device"
        folder = directory.path.resolve()
        if self._shares_files:
            path = str(folder)
        else:
            for name in directory.tensor_cache.file_names():
                self._session.upload(str(folder / name), name)
            path = self._session.get_function("tvm.rpc.server.workpath")("")
        self.builtin("tensor_cache.clear")()
        self.builtin("tensor_cache.load")(path, tvm.cpu().dlpack_device_type(), 0)
        return self.builtin("param_array_from_cache_by_name_unpacked")(*names)

    def _on_device(self, file: Path) -> str:
        if self._shares_files:
            return str(file.resolve())
        name = f"{secrets.token_hex(8)}{file.suffix}"  # no loaded library may be overwritten
        self._session.upload(str(file), name)
        return name


def load_weights(directory: ModelDirectory) -> Weights:
    """The parameters by name. Each is copied once, from the mapped file to memory aligned for the
    kernels, so the weights are never held twice. Raises `WeightsError`."""
    device = tvm.cpu()
    return {name: tvm.runtime.tensor(array, device) for name, array in iter_parameters(directory)}
