"""From object code to a shared library, with the system's C compiler."""

from __future__ import annotations

from pathlib import Path

from tvm import relax
from tvm.support.cc import get_cc

from ..errors import CompileError


def require_linker() -> None:
    """Raise `CompileError` where no C compiler is found; better now than after the long part."""
    if get_cc() is None:
        raise CompileError(
            "no C compiler: expected g++, gcc or clang on the PATH to link the library with; "
            "install one (Debian: apt-get install gcc libc6-dev) or name it in CC"
        )


def link(executable: relax.VMExecutable, path: Path) -> None:
    """Write the shared library. Raises `CompileError` with the linker's words."""
    try:
        executable.export_library(str(path))
    except (RuntimeError, FileNotFoundError) as error:
        words = [line for line in str(error).splitlines() if line.strip()]
        raise CompileError(
            "can't link the library: expected a working C compiler and room on the disk, got: "
            f"{words[-1] if words else type(error).__name__}"
        ) from None
