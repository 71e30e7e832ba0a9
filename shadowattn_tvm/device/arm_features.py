"""What a 64-bit ARM device can do: asked of its Linux, by a kernel that any of them can run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tvm

from tir_kernels.build import build_kernels
from tir_kernels.environment import read_hardware_capabilities

from ..compiler.link import link, require_linker
from .remote import RemoteKernels

ARM_TRIPLES = ("aarch64", "arm64")


@dataclass(frozen=True)
class _Bits:
    """Of the two words, all of which a feature takes (arch/arm64/include/uapi/asm/hwcap.h)."""

    first: int = 0
    second: int = 0


_FPHP, _ASIMDHP, _ASIMDDP, _I8MM2 = 1 << 9, 1 << 10, 1 << 20, 1 << 13

FEATURES: Mapping[str, _Bits] = {
    "dotprod": _Bits(first=_ASIMDDP),
    "fullfp16": _Bits(first=_FPHP | _ASIMDHP),
    "i8mm": _Bits(second=_I8MM2),
}
"""Those our kernels and targets know, as LLVM spells them."""


def arm_features(
    kernels: RemoteKernels, target: tvm.target.Target, folder: Path
) -> tuple[str, ...]:
    """Those of `FEATURES` that the device has. `target`: for its triple; `folder`: for a library.

    Raises `DeviceError` if the device is gone, or is no 64-bit ARM.
    """
    triple = str(target.attrs["mtriple"])
    plain = tvm.target.Target({"kind": "llvm", "mcpu": "generic", "mtriple": triple})
    path = folder / "capabilities.so"
    link(
        build_kernels({"capabilities": read_hardware_capabilities()}, plain),
        path,
        require_linker(triple),
    )
    words = tvm.runtime.tensor(np.zeros(2, np.int64))
    kernels.function(path, "capabilities")(words)
    first, second = (int(word) for word in words.numpy())
    return tuple(
        name
        for name, bits in FEATURES.items()
        if first & bits.first == bits.first and second & bits.second == bits.second
    )
