"""Shared libraries for 64-bit ARM, linked on another machine.

A linker is all it takes: no C compiler for ARM and none of its libraries. A library of ours calls
libc and libm only, whose functions the loader finds by name; what the library must say is that it
needs the two. So it is linked against stand-ins that hold nothing but those names.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tvm.target.codegen import llvm_get_system_triple

from ..config.programs import run_tool
from ..errors import CompileError, DeviceError

LINKERS = ("aarch64-linux-gnu-ld", "ld.lld", "ld.lld-19", "ld.lld-16", "ld.lld-14")
"""Any of them will do, the first one found is taken."""

NDK_VARIABLE = "TVM_NDK_CC"
"""Environment variable that names the NDK's C compiler, as in TVM."""

_EMULATION = "aarch64linux"
_NEEDED = ("libm.so.6", "libc.so.6")
_TIMEOUT_S = 120


@dataclass(frozen=True)
class CrossLinker:
    """A linker as TVM's `export_library(fcompile=...)` takes it.

    Attributes
    ----------
    command : the program.
    triple : what it links for.
    android : whether the program is the NDK's compiler, which knows its own libraries.
    """

    command: str
    triple: str
    android: bool = False

    object_format = "o"

    def get_target_triple(self) -> str:
        """TVM asks for it."""
        return self.triple

    def __call__(self, output: str, objects: Sequence[str], **_: object) -> None:
        """Link object files into a shared library. Raises `CompileError`."""
        if self.android:
            self._run("-shared", "-fPIC", "-o", output, *objects, "-lm")
            return
        with tempfile.TemporaryDirectory(prefix="shadowattn-link-") as folder:
            stand_ins = [self._stand_in(Path(folder), name) for name in _NEEDED]
            self._run(
                *("-m", _EMULATION, "-shared", "--no-as-needed", "-o", output),
                *objects,
                *stand_ins,
            )

    def _stand_in(self, folder: Path, name: str) -> str:
        """An empty shared library of this name."""
        content, found, library = folder / f"{name}.bin", folder / f"{name}.o", folder / name
        content.write_bytes(b"\0")  # linkers refuse to link nothing at all
        # in two steps: of binary input alone GNU ld makes a library without a name
        self._run("-m", _EMULATION, "-r", "-o", str(found), "-b", "binary", str(content))
        self._run("-m", _EMULATION, "-shared", "-soname", name, "-o", str(library), str(found))
        return str(library)

    def _run(self, *arguments: str) -> None:
        try:
            run_tool([self.command, *arguments], _TIMEOUT_S)
        except DeviceError as error:
            raise CompileError(f"can't link the library for {self.triple}: {error}") from None


def cross_linker(triple: str) -> CrossLinker | None:
    """The linker for a triple; None where this machine's own C compiler links for it.

    Raises `CompileError`, saying what to install, where there is none.
    """
    architecture = triple.partition("-")[0]
    if "android" not in triple and architecture == llvm_get_system_triple().partition("-")[0]:
        return None
    if architecture != "aarch64":
        raise CompileError(
            f"can't link for {triple} here: expected a triple of this machine or of aarch64"
        )
    if "android" in triple:
        compiler = os.environ.get(NDK_VARIABLE, "")
        if shutil.which(compiler) is None:
            raise CompileError(
                f"linking for Android takes its NDK: expected {NDK_VARIABLE} to name its compiler, "
                "as .../toolchains/llvm/prebuilt/linux-x86_64/bin/aarch64-linux-android29-clang, "
                f"got {compiler or 'nothing'}; an archive of object files (-o library.tar) takes "
                "no linker"
            )
        return CrossLinker(compiler, triple, android=True)
    for name in LINKERS:
        if shutil.which(name) is not None:
            return CrossLinker(name, triple)
    raise CompileError(
        f"no linker for {triple}: expected one of {', '.join(LINKERS)} on the PATH; install one "
        "(Debian: apt-get install binutils-aarch64-linux-gnu, or lld)"
    )
