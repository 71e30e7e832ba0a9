"""ARM machines under test: emulated ones of several CPUs, or a real one behind RPC."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import tvm
from tvm import tirx

from shadowattn_tvm.compiler.link import link, require_linker
from shadowattn_tvm.compiler.targets import resolve_target
from shadowattn_tvm.device.arm import ArmEmulator, ArmSettings
from shadowattn_tvm.device.arm_features import arm_features
from shadowattn_tvm.device.remote import RemoteKernels
from tir_kernels.build import build_kernels

TRIPLE = "aarch64-linux-gnu"

OLD, PHONE, ANY = "cortex-a53", "cortex-a76", "max"
"""Neither dot products nor half floats; both, as phones since 2018; all that QEMU knows."""

MATRIX = "max with i8mm"
"""The last one, compiled for with INT8 matrix products, as phones since 2022 have them."""

_PRESETS = {ANY: "arm64", MATRIX: "arm64-i8mm"}


def target_of(cpu: str) -> tvm.target.Target:
    """What is compiled for a CPU; for `max` what `compile --device arm64` asks for, with matrix
    products `arm64-i8mm`."""
    if cpu in _PRESETS:
        return resolve_target(_PRESETS[cpu])
    return tvm.target.Target({"kind": "llvm", "mcpu": cpu, "mtriple": TRIPLE})


@dataclass(frozen=True)
class Library:
    """A compiled library on a machine; `library[name]` is callable with this process's tensors."""

    machine: Machine
    path: Path

    def __getitem__(self, name: str) -> Callable[..., None]:
        return self.machine.kernels.function(self.path, name)

    def disassembled(self) -> str:
        """What is counted, as LLVM wrote it."""
        return self.path.with_suffix(".s").read_text()


@dataclass
class Machine:
    """One machine; `emulator` is None for a real one."""

    target: tvm.target.Target
    kernels: RemoteKernels
    folder: Path
    emulator: ArmEmulator | None
    numbers: itertools.count[int] = field(default_factory=itertools.count)

    def features(self) -> tuple[str, ...]:
        """What its Linux reports of those that we ask for."""
        return arm_features(self.kernels, self.target, self.folder)

    def build(
        self, functions: Mapping[str, tirx.PrimFunc], target: tvm.target.Target | None = None
    ) -> Library:
        """Like `build_kernels`, for this machine."""
        path = self.folder / f"{next(self.numbers)}.so"
        module = build_kernels(functions, target or self.target)
        path.with_suffix(".s").write_text(module.mod.inspect_source("asm"))
        link(module, path, require_linker(TRIPLE))
        return Library(self, path)

    @property
    def shares_files(self) -> bool:
        """As an emulated machine does."""
        return self.emulator is not None

    def close(self) -> None:
        """End the session, and the machine if it is ours."""
        self.kernels.close()
        if self.emulator is not None:
            self.emulator.stop()


def emulated(cpu: str, folder: Path, threads: int = 1) -> Machine:
    """A machine of QEMU's, started when it is first called; all its instructions are counted."""
    emulator = ArmEmulator(ArmSettings(cpu, threads), counted=folder)
    kernels = RemoteKernels(emulator.connect, shares_files=True)
    return Machine(target_of(cpu), kernels, folder, emulator)


def real(kernels: RemoteKernels, cpu: str, folder: Path) -> Machine:
    """A machine behind RPC, for which is compiled what `cpu` can run."""
    return Machine(target_of(cpu), kernels, folder, None)
