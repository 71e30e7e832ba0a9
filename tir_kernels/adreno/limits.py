"""What Adreno GPUs allow, and the check that a kernel keeps to it.

OpenCL only guarantees what a device reports; these are the values of the Adreno 6xx and 7xx
families, which no kernel here may exceed.
"""

from __future__ import annotations

import math

from ..spec import SpecError

MAX_WORK_GROUP = 512
"""Work-items of a group: what TVM's Adreno targets are compiled for (`max_threads_per_block`).
Drivers may allow 1,024, but not to kernels with many registers."""

LOCAL_MEMORY_BYTES = 32 * 1024
"""CL_DEVICE_LOCAL_MEM_SIZE; a kernel beyond it doesn't build."""

VECTOR = 4
"""Elements of a load: 8 bytes of halfs, 16 of floats, the widest that one lane loads at once."""

LocalBuffer = tuple[tuple[int, ...], int]
"""A buffer in local memory: its shape, bytes of an element."""


def local_bytes(buffers: list[LocalBuffer]) -> int:
    """Bytes of local memory that buffers take together."""
    return sum(math.prod(shape) * element for shape, element in buffers)


def check_limits(kernel: str, work_items: int, local: int) -> None:
    """Raises `SpecError` if a kernel's work-group is too large for an Adreno."""
    if work_items > MAX_WORK_GROUP:
        raise SpecError(
            f"{kernel}: expected at most {MAX_WORK_GROUP} work-items in a group, got {work_items}"
        )
    if local > LOCAL_MEMORY_BYTES:
        raise SpecError(
            f"{kernel}: expected at most {LOCAL_MEMORY_BYTES} bytes of local memory, got {local}"
        )
