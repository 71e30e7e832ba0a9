"""An emulated Hexagon DSP: QEMU runs v66 and its vector unit, and counts the instructions."""

from .emulated_bank import EmulatedBank
from .emulator import Counters, HexagonEmulator
from .tools import require_emulator, require_linker

__all__ = ["Counters", "EmulatedBank", "HexagonEmulator", "require_emulator", "require_linker"]
