"""Compiled kernels on a device behind RPC, called with this machine's tensors."""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tvm
from tvm import rpc

from ..errors import DeviceError
from .rpc import disconnect, last_words

_GARBAGE = 0x7F
"""Fills memory before a tensor's first byte: large as an integer, and no address."""


class RemoteKernels:
    """Loads libraries on a device and calls their functions.

    Parameters
    ----------
    connect : opens a session; called again after one was lost, so that a crashed kernel costs the
        caller that call alone.
    shares_files : whether the device sees this machine's files, as an emulated one does.
    """

    def __init__(self, connect: Callable[[], rpc.RPCSession], *, shares_files: bool) -> None:
        self._connect = connect
        self._shares_files = shares_files
        self._session: rpc.RPCSession | None = None
        self._modules: dict[Path, Any] = {}
        self._uploads = itertools.count()

    @property
    def session(self) -> rpc.RPCSession:
        """The session, opened when it is first needed. Raises `DeviceError`."""
        if self._session is None:
            self._session = self._connect()
        return self._session

    def function(self, library: Path, name: str) -> Callable[..., None]:
        """A function of a shared library. Whoever calls it raises `DeviceError` if the device was
        lost, and whatever the function itself raises."""
        return lambda *arguments: self._call(library, name, arguments)

    def call(self, name: str, *arguments: Any) -> Any:
        """A function that the runtime over there registers. Raises `DeviceError`."""
        with self.watched():
            return self.session.get_function(name)(*arguments)

    def module(self, library: Path) -> Any:
        """A shared library, loaded over there; sent there if need be, once. Raises `DeviceError`
        for a library of another CPU or system."""
        if library not in self._modules:
            remote = str(library.resolve())
            if not self._shares_files:
                remote = f"{next(self._uploads)}-{library.name}"
                self.session.upload(str(library), remote)
            self._modules[library] = self._loaded(remote)
        return self._modules[library]

    @contextmanager
    def watched(self) -> Iterator[None]:
        """What is done with the session inside raises `DeviceError` if the device was lost
        meanwhile, and whatever it raises on a device that is well."""
        try:
            yield
        except DeviceError:
            raise
        except Exception as error:
            if self._session is None or self._answers():
                raise  # the kernel's own error: the device is fine
            self.close()
            raise DeviceError(
                f"the device was lost during a call: {last_words(error)}; the kernel crashed, or "
                "the server is gone"
            ) from None

    def close(self) -> None:
        """End the session; the next call opens another."""
        self._modules.clear()
        if self._session is not None:
            disconnect(self._session)
        self._session = None

    def _call(self, library: Path, name: str, arguments: tuple[Any, ...]) -> None:
        with self.watched():
            function = self.module(library)[name]
            device = self.session.cpu(0)
            copies = [
                _Copy(argument, device) if isinstance(argument, tvm.runtime.Tensor) else None
                for argument in arguments
            ]
            function(
                *(
                    argument if copy is None else copy.view
                    for argument, copy in zip(arguments, copies, strict=True)
                )
            )
            for copy in filter(None, copies):
                copy.fetch()

    def _loaded(self, remote: str) -> Any:
        try:
            return self.session.load_module(remote)
        except Exception as error:  # the loader's, over there
            if not self._answers():
                raise
            raise DeviceError(
                f"the device can't load what was compiled for it: {last_words(error)}; expected a "
                "library for its CPU and system: does --device name what it is?"
            ) from None

    def _answers(self) -> bool:
        try:
            self.session.get_function("runtime.NumThreads")()
        except Exception:
            return False
        return True


class _Copy:
    """A tensor's copy on the device, as far into its memory as the original is into its own:
    kernels must heed the byte offset of arguments there, too. Bytes go through the whole memory,
    because TVM's copies over RPC ignore the offset of a view."""

    def __init__(self, original: tvm.runtime.Tensor, device: tvm.runtime.Device) -> None:
        self._original = original
        self._offset = _byte_offset(original)
        values = original.numpy()
        memory = np.full(self._offset + values.nbytes, _GARBAGE, np.uint8)
        memory[self._offset :] = np.frombuffer(values.tobytes(), np.uint8)
        self._memory = tvm.runtime.tensor(memory, device)
        self.view = self._memory._create_view(
            original.shape, original.dtype, relative_byte_offset=self._offset
        )

    def fetch(self) -> None:
        """The device's values into the original."""
        values = self._original.numpy()
        fetched = self._memory.numpy()[self._offset :].view(values.dtype)
        self._original.copyfrom(fetched.reshape(values.shape))


class _DLTensor(ctypes.Structure):
    """DLPack's, of which Python is told everything but the last field."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device", ctypes.c_int32 * 2),
        ("ndim", ctypes.c_int32),
        ("dtype", ctypes.c_uint8 * 4),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("byte_offset", ctypes.c_uint64),
    )


def _byte_offset(tensor: tvm.runtime.Tensor) -> int:
    pointer = ctypes.pythonapi.PyCapsule_GetPointer
    pointer.restype, pointer.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    capsule = tensor._to_dlpack()
    return int(_DLTensor.from_address(pointer(capsule, b"dltensor")).byte_offset)
