"""From object code to a shared library, with this machine's C compiler or another's linker."""

from __future__ import annotations

from pathlib import Path

import tvm
from tvm import relax
from tvm.support.cc import get_cc
from tvm.target.codegen import llvm_get_system_triple

from ..errors import CompileError
from .cross_link import CrossLinker, cross_linker


def require_linker(triple: str | None = None) -> CrossLinker | None:
    """What links for `triple`: None for this machine's C compiler. Raises `CompileError` where it
    is missing; better now than after the long part."""
    linker = cross_linker(triple or llvm_get_system_triple())
    if linker is None and get_cc() is None:
        raise CompileError(
            "no C compiler: expected g++, gcc or clang on the PATH to link the library with; "
            "install one (Debian: apt-get install gcc libc6-dev) or name it in CC"
        )
    return linker


def link(
    executable: relax.VMExecutable | tvm.runtime.Executable | tvm.runtime.Module,
    path: Path,
    linker: CrossLinker | None = None,
) -> None:
    """Write the shared library. Raises `CompileError` with the linker's words."""
    try:
        if linker is None:
            executable.export_library(str(path))
        else:
            executable.export_library(str(path), fcompile=linker)
    except (RuntimeError, FileNotFoundError) as error:
        words = [line for line in str(error).splitlines() if line.strip()]
        raise CompileError(
            "can't link the library: expected a working C compiler and room on the disk, got: "
            f"{words[-1] if words else type(error).__name__}"
        ) from None
