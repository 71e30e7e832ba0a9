"""Where kernels are timed: this machine, or a device behind RPC (`device_rig`)."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Protocol

import tvm
from tvm import tirx

from tir_kernels.build import build_kernels
from tir_kernels.features import CpuFeatures, cpu_features

from ..compiler import resolve_target
from ..evaluate.results import Machine, this_machine
from ..transform.stamp_stages import TRACE_VARIABLE
from .timing import clocked_ms, use_threads

Kernel = Callable[..., None]
"""A compiled kernel, as a function of tensors on the rig's device."""


class Rig(Protocol):
    """What benchmarks ask of the place they run at. What fails at a device raises `DeviceError`."""

    @property
    def target(self) -> tvm.target.Target:
        """What kernels are compiled for."""

    @property
    def features(self) -> CpuFeatures:
        """Of the target."""

    @property
    def device(self) -> tvm.runtime.Device:
        """Where tensors are."""

    @property
    def is_here(self) -> bool:
        """Whether others, such as torch, run at the same place."""

    def machine(self) -> Machine:
        """The place, in words."""

    def build(self, kernels: Mapping[str, tirx.PrimFunc]) -> Mapping[str, Kernel]:
        """Compile kernels, and bring them there."""

    def use_threads(self, threads: int) -> None:
        """Let TVM's pool over there run tasks on so many threads."""

    def elapsed_ms(self, run: Callable[[Kernel], None], kernel: Kernel) -> float:
        """How long a built kernel takes, as `run` calls it."""

    def traced(self) -> AbstractContextManager[Callable[[], bytes]]:
        """Have stamps of kernels made with `StampStages` written; what is given takes those that
        came since the last time."""


class HostRig:
    """See `Rig`: this machine, in this process."""

    is_here = True

    @property
    def target(self) -> tvm.target.Target:
        """See `Rig`."""
        return resolve_target("host")

    @property
    def features(self) -> CpuFeatures:
        """See `Rig`."""
        return cpu_features(self.target)

    @property
    def device(self) -> tvm.runtime.Device:
        """See `Rig`."""
        return tvm.cpu()

    def machine(self) -> Machine:
        """See `Rig`."""
        return this_machine()

    def build(self, kernels: Mapping[str, tirx.PrimFunc]) -> Mapping[str, Kernel]:
        """See `Rig`."""
        module = build_kernels(kernels, self.target)
        return {name: module[name] for name in kernels}

    def use_threads(self, threads: int) -> None:
        """See `Rig`."""
        use_threads(threads)

    def elapsed_ms(self, run: Callable[[Kernel], None], kernel: Kernel) -> float:
        """See `Rig`."""
        return clocked_ms(lambda: run(kernel))

    @contextmanager
    def traced(self) -> Iterator[Callable[[], bytes]]:
        """See `Rig`."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "stamps"
            path.touch()

            def take() -> bytes:
                stamps = path.read_bytes()
                os.truncate(path, 0)
                return stamps

            os.environ[TRACE_VARIABLE] = str(path)
            try:
                yield take
            finally:
                del os.environ[TRACE_VARIABLE]


HERE = HostRig()
