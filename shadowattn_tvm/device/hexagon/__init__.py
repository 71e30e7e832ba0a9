"""An emulated Hexagon DSP: QEMU runs the instructions of v66 and its vector unit, and counts them."""

from .emulator import Counters, HexagonEmulator
from .tools import require_emulator, require_linker

__all__ = ["Counters", "HexagonEmulator", "require_emulator", "require_linker"]
