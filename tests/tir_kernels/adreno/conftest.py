"""The OpenCL device that Adreno's kernels run on in tests: a CPU, through PoCL."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import pytest

from shadowattn_tvm.device.opencl.program import compile_opencl
from shadowattn_tvm.device.opencl.queue import OpenClQueue, find_device
from shadowattn_tvm.errors import ShadowAttnError
from tir_kernels.adreno import (
    dense_paged_decode,
    dense_paged_prefill,
    dense_ragged_prefill,
    merge_states,
    shadow_paged_prefill,
    sparse_attention,
)

POCL = "portable computing language"

KERNELS = {
    "sparse_attention": sparse_attention,
    "ragged_prefill": dense_ragged_prefill,
    "paged_prefill": dense_paged_prefill,
    "paged_decode": dense_paged_decode,
    "merge_states": merge_states,
    "shadow_prefill": shadow_paged_prefill,
}

Kernel = Callable[..., None]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Everything here compiles to OpenCL; what needs a device skips without one."""
    for item in items:
        if "opencl_kernel" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.opencl)


def open_queue(platform: str) -> OpenClQueue:
    """A queue of the platform's device; skips, saying why, where there is none."""
    try:
        return OpenClQueue(find_device(platform))
    except ShadowAttnError as error:
        pytest.skip(str(error))


@pytest.fixture(scope="session")
def opencl_kernel() -> Callable[[str, object], Kernel]:
    """Kernels by name and spec, as functions of the PrimFunc's parameters; each is built once."""
    queue = open_queue(POCL)

    @cache
    def kernel(name: str, spec: object) -> Kernel:
        return queue.load(compile_opencl(KERNELS[name](spec), f"adreno_{name}"))

    return kernel
