"""An emulated Hexagon DSP: QEMU runs v66 and its vector unit, and counts the instructions."""

from ...compiler.hexagon.tools import require_emulator, require_linker
from .emulated_bank import EmulatedBank
from .emulator import Counters, HexagonEmulator

__all__ = ["Counters", "EmulatedBank", "HexagonEmulator", "require_emulator", "require_linker"]
