"""Instructions that an emulated machine executed in some libraries, counted by a plugin of QEMU.

Times in emulation say nothing; counts are exact and the same on every machine.
"""

from __future__ import annotations

import hashlib
import os
import struct
import tempfile
from dataclasses import astuple, dataclass, fields
from pathlib import Path

from ...config.atomic import write_atomically
from ...config.paths import cache_dir
from ...config.programs import require_tools, run_tool
from .tools import ENABLE

_SOURCE = Path(__file__).with_name("counter.c")
_COMPILE_TIMEOUT_S = 60.0


@dataclass(frozen=True)
class InstructionCounts:
    """Instructions executed; the fields overlap.

    Attributes
    ----------
    total : all of them.
    load_store : loads and stores, scalar and vector.
    vector : arithmetic on vectors and floats.
    branch : branches, taken or not.
    int8_dot : `sdot` and `udot`: 16 products of bytes each.
    int8_matrix : `smmla` and `ummla`: 32 of them.
    multiply_add : `fmla` on vectors: 4 float32 products each.
    """

    total: int
    load_store: int
    vector: int
    branch: int
    int8_dot: int
    int8_matrix: int
    multiply_add: int

    def __sub__(self, earlier: InstructionCounts) -> InstructionCounts:
        return InstructionCounts(
            *(now - then for now, then in zip(astuple(self), astuple(earlier), strict=True))
        )


_LAYOUT = struct.Struct(f"={len(fields(InstructionCounts))}Q")
"""The order is that of `counter.c`."""


class Counter:
    """The plugin and the file its counters are in; counts libraries below `folder`.

    Raises `DeviceError` if the plugin can't be compiled.
    """

    def __init__(self, folder: Path) -> None:
        self._plugin = _compiled_plugin()
        handle, name = tempfile.mkstemp(prefix="shadowattn-arm-", suffix=".counts")
        with os.fdopen(handle, "wb") as file:
            file.write(bytes(_LAYOUT.size))
        self._file = Path(name)
        self._folder = folder.resolve()

    def options(self) -> list[str]:
        """QEMU's."""
        return ["-plugin", f"{self._plugin},folder={self._folder}/,out={self._file}"]

    def read(self) -> InstructionCounts:
        """Since the machine's start."""
        return InstructionCounts(*_LAYOUT.unpack(self._file.read_bytes()))

    def close(self) -> None:
        """The machine keeps its mapping."""
        self._file.unlink(missing_ok=True)


def _compiled_plugin() -> Path:
    """The plugin for QEMU on this machine, compiled once."""
    key = hashlib.sha256(_SOURCE.read_bytes()).hexdigest()[:16]
    plugin = cache_dir() / "devices" / f"arm-counter-{key}.so"
    if not plugin.is_file():
        require_tools("counting instructions", "cc", enable=ENABLE)
        with write_atomically(plugin) as staged:
            options = ["-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC"]
            command = ["cc", *options, "-o", str(staged), str(_SOURCE)]
            run_tool(command, _COMPILE_TIMEOUT_S)
    return plugin
