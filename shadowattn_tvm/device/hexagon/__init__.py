"""An emulated Hexagon DSP: QEMU runs v66 and its vector unit, and counts the instructions."""

from .emulator import Counters, HexagonEmulator
from .tools import require_emulator, require_linker

__all__ = ["Counters", "HexagonEmulator", "require_emulator", "require_linker"]
