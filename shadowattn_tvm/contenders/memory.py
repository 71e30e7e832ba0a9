"""The peak of a process's memory, from a moment on."""

from __future__ import annotations

from pathlib import Path

from ..runtime.stats import peak_memory_bytes

_CLEAR = Path("/proc/self/clear_refs")
_FORGET_PEAK = "5"
"""proc(5): sets the largest resident set to the present one."""


class PeakMemory:
    """The largest resident set of this process since this was made."""

    def __init__(self) -> None:
        try:
            _CLEAR.write_text(_FORGET_PEAK, encoding="ascii")
        except OSError:  # not Linux, or forbidden: loading would be counted too
            self._known = False
        else:
            self._known = True

    def in_bytes(self) -> int | None:
        """None where the system can't forget an earlier peak."""
        return peak_memory_bytes() if self._known else None
