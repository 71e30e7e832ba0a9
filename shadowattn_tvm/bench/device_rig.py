"""Timing on a device behind TVM RPC: kernels are compiled here, sent there and timed there.

Times are the device's own, by TVM's time evaluator: the way to the device is not in them. The
evaluator calls a kernel once before it counts, so caches are warmer than in a whole model.
"""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import tvm
from tvm import tirx

from tir_kernels.build import build_kernels
from tir_kernels.environment import set_variable
from tir_kernels.features import CpuFeatures, cpu_features

from ..compiler.link import link, require_linker
from ..compiler.targets import resolve_target
from ..device.arm_features import ARM_TRIPLES, FEATURES, arm_features
from ..device.remote import RemoteKernels
from ..device.rpc import RpcAddress, connect
from ..errors import DeviceError
from ..evaluate.results import Machine
from ..transform.stamp_stages import TRACE_VARIABLE
from .rig import Kernel

_EFFICIENT_FIRST = 1
"""TVM's pool mode that pins a thread to each of the fastest cores."""

_STAMPS = "stamps"
"""A file in the folder that the server has for its client."""

DEFAULT_DEVICE = "arm64"


class DeviceRig:
    """See `Rig`.

    Parameters
    ----------
    kernels : the connection.
    target : what is compiled.
    folder : where libraries are kept until they are sent.
    name : of the device, in words.
    """

    is_here = False

    def __init__(
        self, kernels: RemoteKernels, target: tvm.target.Target, folder: Path, name: str
    ) -> None:
        self.target = target
        self._kernels = kernels
        self._folder = folder
        self._name = name
        self._numbers = itertools.count()
        self._linker = require_linker(str(target.attrs["mtriple"]))

    @property
    def features(self) -> CpuFeatures:
        """See `Rig`."""
        return cpu_features(self.target)

    @property
    def device(self) -> tvm.runtime.Device:
        """See `Rig`."""
        return self._kernels.session.cpu(0)

    def machine(self) -> Machine:
        """See `Rig`. Over RPC a device tells neither its name nor its cores."""
        return Machine(
            system=str(self.target.attrs["mtriple"]),
            processor=self._name,
            physical_cores=None,
            threads=str(self._num_threads()),
        )

    def build(self, kernels: Mapping[str, tirx.PrimFunc]) -> Mapping[str, Kernel]:
        """See `Rig`."""
        path = self._folder / f"{next(self._numbers)}.so"
        link(build_kernels(kernels, self.target), path, self._linker)
        return {name: _DeviceKernel(self._kernels, path, name) for name in kernels}

    def use_threads(self, threads: int) -> None:
        """See `Rig`. Raises `DeviceError` for more threads than the device's pool was made with:
        stages would take turns where they should run side by side."""
        self._kernels.call("runtime.config_threadpool", _EFFICIENT_FIRST, threads)
        found = self._num_threads()
        if found < threads:
            raise DeviceError(
                f"expected a device with {threads} threads in TVM's pool, got {found}: start its "
                f"RPC server with TVM_NUM_THREADS={threads} (an emulated one with `shadowattn "
                f"device arm start --threads {threads}`)"
            )

    def elapsed_ms(self, run: Callable[[Kernel], None], kernel: Kernel) -> float:
        """See `Rig`."""
        assert isinstance(kernel, _DeviceKernel), "built elsewhere"
        return 1e3 * kernel.elapsed_s(run)

    @contextmanager
    def traced(self) -> Iterator[Callable[[], bytes]]:
        """See `Rig`."""
        session = self._kernels.session
        path = str(self._kernels.call("tvm.rpc.server.workpath", _STAMPS))

        def take() -> bytes:
            stamps = bytes(session.download(_STAMPS))
            session.upload(bytearray(), _STAMPS)
            return stamps

        session.upload(bytearray(), _STAMPS)
        variable = self.build(
            {"set": set_variable(TRACE_VARIABLE, path), "unset": set_variable(TRACE_VARIABLE, "")}
        )
        variable["set"]()
        yield take
        variable["unset"]()  # after an error the session ends, and its process with it

    def _num_threads(self) -> int:
        return int(self._kernels.call("runtime.NumThreads"))


class _DeviceKernel:
    """A kernel on the device; sent there when it is first called."""

    def __init__(self, kernels: RemoteKernels, library: Path, name: str) -> None:
        self._kernels = kernels
        self._library = library
        self._name = name

    def __call__(self, *arguments: Any) -> None:
        self._module[self._name](*arguments)

    def elapsed_s(self, run: Callable[[Kernel], None]) -> float:
        """Over all calls that `run` makes."""
        device = self._kernels.session.cpu(0)
        evaluator = self._module.time_evaluator(self._name, device, number=1)
        times_s: list[float] = []

        def timed(*arguments: Any) -> None:
            times_s.append(evaluator(*arguments).mean)

        run(timed)
        return sum(times_s)

    @property
    def _module(self) -> Any:
        return self._kernels.module(self._library)


@contextmanager
def open_device_rig(address: RpcAddress, device: str | None) -> Iterator[DeviceRig]:
    """A device to time on. `device`: what to compile for, as a configuration names it; by default
    64-bit ARM with all that the device has of what our kernels use.

    Raises `DeviceError` if there is no device, it is no ARM, or lacks what is compiled for, and if
    it is lost while the rig is open; `ConfigError` for an unknown name.
    """
    kernels = RemoteKernels(lambda: connect(address), shares_files=False)
    folders = tempfile.TemporaryDirectory(prefix="shadowattn-rig-")
    with closing(kernels), folders as folder, kernels.watched():
        target = resolve_target(device or DEFAULT_DEVICE)
        has: tuple[str, ...] = ()
        if str(target.attrs["mtriple"]).startswith(ARM_TRIPLES):
            has = arm_features(kernels, target, Path(folder))
            if device is None:
                target = resolve_target(DEFAULT_DEVICE, ("neon", *has))
            _require_features(target, has, device)
        name = f"{device or DEFAULT_DEVICE} ({', '.join(has) or 'no extensions'}), {address}"
        yield DeviceRig(kernels, target, Path(folder), name)


def _require_features(target: tvm.target.Target, has: tuple[str, ...], device: str | None) -> None:
    asked = {str(name).removeprefix("+") for name in target.attrs.get("mattr", ())}
    missing = sorted((asked & set(FEATURES)) - set(has))
    if missing:
        raise DeviceError(
            f"--device {device} asks for {', '.join(missing)}, which the device lacks: it has "
            f"{', '.join(has) or 'none of our extensions'}; leave out --device to compile for it"
        )
