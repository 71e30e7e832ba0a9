"""The programs an emulated ARM machine takes, and what to say where one is missing."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence

from ...errors import DeviceError

EMULATOR = "qemu-aarch64"

ENABLE = "make arm-device"
"""The one command that installs and makes all of it."""

_PACKAGES = {EMULATOR: "qemu-user", "dpkg-deb": "dpkg", "apt-get": "apt", "cc": "gcc libc6-dev"}


def missing_tools(*tools: str) -> tuple[str, ...]:
    """Those that are not on the PATH."""
    return tuple(tool for tool in tools if shutil.which(tool) is None)


def require_tools(purpose: str, *tools: str) -> None:
    """Raise `DeviceError` naming the Debian packages of tools that are missing."""
    missing = missing_tools(*tools)
    if missing:
        packages = " ".join(_PACKAGES[tool] for tool in missing)
        raise DeviceError(
            f"{purpose} takes {', '.join(missing)}, which the PATH doesn't have; install with "
            f"`apt-get install {packages}` (Debian), or everything at once with `{ENABLE}`"
        )


def require_emulator() -> None:
    """Raise `DeviceError` unless code for ARM can be run here."""
    require_tools("an emulated ARM machine", EMULATOR)


def run_tool(
    command: Sequence[str], timeout_s: float, environment: Mapping[str, str] | None = None
) -> str:
    """What a program prints. Raises `DeviceError` with its words if it fails."""
    try:
        done = subprocess.run(
            list(command),
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
            env=environment,
        )
    except subprocess.TimeoutExpired:
        raise DeviceError(
            f"{command[0]} took more than {timeout_s:.0f} s and was stopped"
        ) from None
    except OSError as error:
        raise DeviceError(f"can't run {command[0]}: {error.strerror}") from None
    if done.returncode != 0:
        words = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
        raise DeviceError(
            f"{' '.join(command[:3])} failed: {words[-1] if words else f'exit {done.returncode}'}"
        )
    return done.stdout
