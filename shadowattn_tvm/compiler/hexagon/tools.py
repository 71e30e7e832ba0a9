"""The Debian packages an emulated Hexagon takes, and what to say where one is missing."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence

from ...errors import DeviceError

EMULATOR = "qemu-hexagon"
COMPILER = "clang-19"
LINKER = "ld.lld-19"

_PACKAGES = {EMULATOR: "qemu-user", COMPILER: "clang-19", LINKER: "lld-19"}

_TIMEOUT_S = 120


def missing_tools(*tools: str) -> tuple[str, ...]:
    """Those that are not on the PATH."""
    return tuple(tool for tool in tools if shutil.which(tool) is None)


def require_tools(purpose: str, *tools: str) -> None:
    """Raise `DeviceError` naming the packages of tools that are missing."""
    missing = missing_tools(*tools)
    if missing:
        packages = " ".join(_PACKAGES[tool] for tool in missing)
        raise DeviceError(
            f"{purpose} takes {', '.join(missing)}, which the PATH doesn't have; install "
            f"{'it' if len(missing) == 1 else 'them'} with `apt-get install {packages}` (Debian), "
            "or all that devices take with `make devices`"
        )


def require_linker() -> None:
    """Raise `DeviceError` unless objects for Hexagon can be linked."""
    require_tools("linking for Hexagon", LINKER)


def require_emulator() -> None:
    """Raise `DeviceError` unless code for Hexagon can be run here."""
    require_tools("an emulated Hexagon", EMULATOR, COMPILER, LINKER)


def run_tool(command: Sequence[str]) -> None:
    """Run one of the tools. Raises `DeviceError` with its words if it fails."""
    try:
        done = subprocess.run(
            list(command), capture_output=True, text=True, check=False, timeout=_TIMEOUT_S
        )
    except subprocess.TimeoutExpired:
        raise DeviceError(f"{command[0]} took more than {_TIMEOUT_S} s and was stopped") from None
    if done.returncode != 0:
        words = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        raise DeviceError(
            f"{command[0]} failed: {words[0] if words else f'exit code {done.returncode}'}"
        )
