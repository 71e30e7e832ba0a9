"""Other programs that we run: whether they are there, what to install, and what they say."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence

from ..errors import DeviceError

_PACKAGES = {
    "qemu-aarch64": "qemu-user",
    "qemu-hexagon": "qemu-user",
    "clang-19": "clang-19",
    "ld.lld-19": "lld-19",
    "dpkg-deb": "dpkg",
    "apt-get": "apt",
    "cc": "gcc libc6-dev",
}
"""Debian's packages."""


def missing_tools(*tools: str) -> tuple[str, ...]:
    """Those that are not on the PATH."""
    return tuple(tool for tool in tools if shutil.which(tool) is None)


def require_tools(purpose: str, *tools: str, enable: str) -> None:
    """Raise `DeviceError` naming the Debian packages of tools that are missing, and the one command
    that installs them all, `enable`."""
    missing = missing_tools(*tools)
    if missing:
        packages = " ".join(dict.fromkeys(_PACKAGES[tool] for tool in missing))
        raise DeviceError(
            f"{purpose} takes {', '.join(missing)}, which the PATH doesn't have; install with "
            f"`apt-get install {packages}` (Debian), or everything at once with `{enable}`"
        )


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
        # compilers name an error first and count errors last
        telling = [line for line in words if "error:" in line] or words[-1:]
        raise DeviceError(
            f"{' '.join(command[:3])} failed: "
            f"{telling[0] if telling else f'exit code {done.returncode}'}"
        )
    return done.stdout
