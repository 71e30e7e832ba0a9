"""The programs an emulated ARM machine takes."""

from __future__ import annotations

from ...config.programs import require_tools

EMULATOR = "qemu-aarch64"

ENABLE = "make arm-device"
"""The one command that installs and makes all of it."""


def require_emulator() -> None:
    """Raise `DeviceError` unless code for ARM can be run here."""
    require_tools("an emulated ARM machine", EMULATOR, enable=ENABLE)
