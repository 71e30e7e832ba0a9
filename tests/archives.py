"""What is in an archive that a compiler made for a phone."""

from __future__ import annotations

import struct
import tarfile
from collections.abc import Iterable
from pathlib import Path

from tvm import tirx

from shadowattn_tvm.device.opencl.program import compile_opencl

EM_AARCH64 = 183

_ELF = b"\x7fELF"


def members(archive: Path) -> list[bytes]:
    with tarfile.open(archive) as tar:
        return [file.read() for file in map(tar.extractfile, tar) if file is not None]


def machines(objects: list[bytes]) -> set[int]:
    """`e_machine` of every ELF object."""
    return {
        struct.unpack_from("<H", content, 18)[0] for content in objects if content.startswith(_ELF)
    }


def require_aarch64(objects: list[bytes]) -> None:
    """Nothing but objects for 64-bit ARM."""
    assert objects
    assert all(content.startswith(_ELF) for content in objects)
    assert machines(objects) == {EM_AARCH64}


def require_opencl(
    contents: bytes, kernels: Iterable[tuple[str, tirx.PrimFunc]], prefix: str = ""
) -> None:
    """The host code of `kernels` is there, and, to the letter, the OpenCL that their own tests run.
    (What is in an archive differs from that by the library's `prefix` of symbols.)"""
    for name, kernel in kernels:
        assert f"__tvm_ffi_{prefix}{name}\0".encode() in contents, name
        _, *parts = compile_opencl(kernel, prefix + name).source.split("__kernel void ")
        assert parts
        for part in parts:
            body, _, _ = part.partition("\n// Function: ")
            assert body.strip().encode() in contents, body.splitlines()[0]
