"""How many threads the kernels run on."""

from __future__ import annotations

import os
from pathlib import Path

THREADS_VARIABLE = "TVM_NUM_THREADS"
_CPU_TOPOLOGY = Path("/sys/devices/system/cpu")


def use_physical_cores() -> None:
    """Let TVM's thread pool have one thread per physical core, unless the user has said otherwise.

    Left to itself it takes half the logical CPUs, assuming two per core, which on machines without
    simultaneous multithreading leaves half the cores idle. Must be called before the process runs
    its first parallel kernel: the pool keeps the size it was made with.
    """
    if THREADS_VARIABLE not in os.environ:
        os.environ[THREADS_VARIABLE] = str(num_physical_cores())


def num_physical_cores() -> int:
    """Physical cores this process may run on; logical CPUs where the system doesn't tell."""
    if not hasattr(os, "sched_getaffinity"):  # not Linux
        return os.cpu_count() or 1
    allowed = os.sched_getaffinity(0)
    return len({_core(cpu) for cpu in allowed})


def _core(cpu: int) -> tuple[str, ...]:
    """What two logical CPUs share exactly if they are one core."""
    topology = _CPU_TOPOLOGY / f"cpu{cpu}" / "topology"
    try:
        return tuple((topology / name).read_text() for name in ("physical_package_id", "core_id"))
    except OSError:
        return (str(cpu),)
