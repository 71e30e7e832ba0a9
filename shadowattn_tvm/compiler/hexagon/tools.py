"""The programs a bank and an emulated Hexagon take."""

from __future__ import annotations

from ...config.programs import require_tools

EMULATOR = "qemu-hexagon"
COMPILER = "clang-19"
LINKER = "ld.lld-19"

TIMEOUT_S = 120
"""For one run of the compiler or the linker."""

ENABLE = "make hexagon-device"
"""The one command that installs them all."""


def require_linker() -> None:
    """Raise `DeviceError` unless objects for Hexagon can be linked."""
    require_tools("linking for Hexagon", LINKER, enable=ENABLE)


def require_emulator() -> None:
    """Raise `DeviceError` unless code for Hexagon can be run here."""
    require_tools("an emulated Hexagon", EMULATOR, COMPILER, LINKER, enable=ENABLE)
