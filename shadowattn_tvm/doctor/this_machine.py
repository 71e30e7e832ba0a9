"""The CPU, the linkers and the emulators of this machine; none of them is a Python package.

What loads TVM is imported where it is used: this file must not fail without it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence

from ..config.programs import missing_tools
from ..errors import ShadowAttnError
from .document import Finding, State
from .probe import Outcome

_CPU = """
from shadowattn_tvm.compiler.targets import resolve_target
from tir_kernels.features import cpu_features
target = resolve_target("host")
has = cpu_features(target)
print(f"{target.attrs['mcpu']}: {has.isa}, {has.lanes} lanes, INT8 dot products by {has.int8_dot}")
"""

_C_COMPILERS = ("g++", "gcc", "clang++", "clang", "c++", "cc")
"""What TVM takes, the first that is there, unless $CXX or $CC names one."""


def cpu(run: Callable[[str], Outcome]) -> Finding:
    """The vector unit as our kernels see it."""
    outcome = run(_CPU)
    return Finding(
        section="compiler",
        name="CPU",
        state="ok" if outcome.works else "broken",
        required=True,
        found=outcome.said,
        enables="kernels for this machine's vector unit",
        install=None,
    )


def c_compiler() -> Finding:
    """What links libraries for this machine."""
    named = os.environ.get("CXX") or os.environ.get("CC")
    found = next(filter(None, map(shutil.which, (named,) if named else _C_COMPILERS)), None)
    return Finding(
        section="compiler",
        name="C compiler",
        state="ok" if found else "missing",
        required=True,
        found=found or f"no {named or ', '.join(_C_COMPILERS)} on the PATH",
        enables="compile and chat: it links libraries for this machine",
        install="apt-get install gcc libc6-dev",
    )


def arm_linker() -> Finding:
    """What links for 64-bit ARM."""
    from ..compiler.cross_link import cross_linker

    return _attempt(
        "linker for arm64",
        lambda: _command(cross_linker("aarch64-linux-gnu")),
        "compile --device arm64",
        "make arm-device",
    )


def android_linker() -> Finding:
    """The NDK's compiler."""
    from ..compiler.cross_link import cross_linker

    return _attempt(
        "Android NDK",
        lambda: _command(cross_linker("aarch64-linux-android")),
        "compile --device arm64-android",
        None,
    )


def arm_machine() -> Finding:
    """The emulated one: QEMU, its image, and whether one is running."""
    from ..device.arm import arm_status, image_path, require_emulator

    def look() -> tuple[State, str]:
        require_emulator()
        image = image_path()
        if not image.is_dir():
            return "missing", f"no image at {image}"
        running = arm_status()
        where = "" if running is None else f"; {running.cpu} at {running.host}:{running.port}"
        return "ok", f"image {image.name}{where}"

    return _attempt(
        "emulated ARM machine",
        look,
        "device arm start; running arm64 kernels and models without a device",
        "make arm-device",
    )


def hexagon() -> Iterator[Finding]:
    """What links graphs for a Hexagon, and what runs them here."""
    from ..compiler.hexagon.tools import COMPILER, EMULATOR, ENABLE, LINKER

    yield _programs(
        "linker for Hexagon", (LINKER,), "compile --device hexagon-v75 and others", ENABLE
    )
    yield _programs(
        "emulated Hexagon", (EMULATOR, COMPILER, LINKER), "running banks of pilot graphs", ENABLE
    )


def _programs(name: str, tools: Sequence[str], enables: str, install: str) -> Finding:
    missing = missing_tools(*tools)
    return Finding(
        section="devices",
        name=name,
        state="missing" if missing else "ok",
        required=False,
        found=f"no {', '.join(missing)} on the PATH" if missing else ", ".join(tools),
        enables=enables,
        install=install,
    )


def _command(linker: object) -> tuple[State, str]:
    return "ok", str(getattr(linker, "command", "this machine's C compiler"))


def _attempt(
    name: str, look: Callable[[], tuple[State, str]], enables: str, install: str | None
) -> Finding:
    """What a look gives; one that ends in an error of ours finds something missing."""
    try:
        state, found = look()
    except ShadowAttnError as error:
        state, found = "missing", str(error).partition("; install")[0]
    return Finding(
        section="devices",
        name=name,
        state=state,
        required=False,
        found=found,
        enables=enables,
        install=install,
    )
