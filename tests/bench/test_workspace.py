"""Counted memory against what the kernel asks the runtime for."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import tvm

from shadowattn_tvm.bench.inputs import SlotCall, random_inputs
from shadowattn_tvm.bench.timing import use_threads
from shadowattn_tvm.bench.workspace import kv_cache_bytes, pilot_workspace_bytes
from tests.tir_kernels.shadow.test_lists import PILOTS, SMALL, plan_of
from tir_kernels.build import build_kernels
from tir_kernels.features import cpu_features
from tir_kernels.shadow.prefill import shadow_paged_prefill

NUM_PAST, NUM_QUERIES = 3001, 37
SMALL_BUFFERS_BYTES = 32 << 10
"""The plan's table and the registers' worth of buffers, which don't grow with the past."""

_ALLOC, _FREE = "__TVMBackendAllocWorkspace", "__TVMBackendFreeWorkspace"
_Alloc = ctypes.CFUNCTYPE(
    ctypes.c_void_p, ctypes.c_int, ctypes.c_int, ctypes.c_uint64, ctypes.c_int, ctypes.c_int
)
_Free = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_void_p)


class Watch:
    """What is allocated, in bytes by address, and the most there ever was."""

    def __init__(self) -> None:
        self.sizes: dict[int, int] = {}
        self.peak_bytes = 0


@contextmanager
def watched(library: Path) -> Iterator[Watch]:
    """Count the workspace that a loaded library asks for."""
    watch = Watch()
    pointers = {n: ctypes.c_void_p.in_dll(ctypes.CDLL(str(library)), n) for n in (_ALLOC, _FREE)}
    before = {name: pointer.value for name, pointer in pointers.items()}
    assert all(before.values()), "the library was not loaded by the runtime"
    allocate, free = _Alloc(before[_ALLOC]), _Free(before[_FREE])

    @_Alloc
    def counting_allocate(kind: int, device: int, num_bytes: int, code: int, bits: int) -> int:
        address: int = allocate(kind, device, num_bytes, code, bits)
        watch.sizes[address] = num_bytes
        watch.peak_bytes = max(watch.peak_bytes, sum(watch.sizes.values()))
        return address

    @_Free
    def counting_free(kind: int, device: int, address: int) -> int:
        del watch.sizes[address]
        return int(free(kind, device, address))

    pointers[_ALLOC].value = ctypes.cast(counting_allocate, ctypes.c_void_p).value
    pointers[_FREE].value = ctypes.cast(counting_free, ctypes.c_void_p).value
    try:
        yield watch
    finally:
        for name, pointer in pointers.items():
            pointer.value = before[name]


@pytest.mark.parametrize("pilot", ["plain", "int8-scores", "group-block-16"])
def test_workspace_is_what_the_kernel_asks_for(
    pilot: str, host_target: tvm.target.Target, tmp_path: Path
) -> None:
    spec, features = plan_of(SMALL, PILOTS[pilot]), cpu_features(host_target)
    library = tmp_path / "kernel.so"
    kernel = shadow_paged_prefill(spec, features)
    build_kernels({"kernel": kernel}, host_target).export_library(str(library))
    function = tvm.runtime.load_module(str(library))["kernel"]
    inputs = random_inputs(SMALL, NUM_QUERIES, NUM_PAST, seed=1)
    calls = [SlotCall(SMALL, inputs, layer, tvm.cpu()) for layer in range(spec.num_layers)]
    use_threads(1)  # tasks one after the other
    with watched(library) as watch:
        for call in calls:
            call(function, 0.0)
    assert watch.sizes == {}
    counted = pilot_workspace_bytes(
        spec, features, num_past=NUM_PAST, num_queries=NUM_QUERIES, threads=1
    )
    assert counted * 0.97 <= watch.peak_bytes <= counted + SMALL_BUFFERS_BYTES


def test_a_past_too_short_to_be_thinned_out_takes_none(host_target: tvm.target.Target) -> None:
    spec = plan_of(SMALL, PILOTS["plain"])
    features = cpu_features(host_target)
    few = spec.k_min
    assert pilot_workspace_bytes(spec, features, num_past=few, num_queries=5, threads=2) == 0


def test_kv_cache_by_hand() -> None:
    # 2 layers, 3 pages of 16 tokens, keys and values of 2 heads of 64 float32
    assert (SMALL.num_kv_heads, SMALL.head_dim, SMALL.page_size) == (2, 64, 16)
    assert kv_cache_bytes(SMALL, 2, 33) == 2 * 3 * 2 * 2 * 16 * 64 * 4
    half = replace(SMALL, dtype="float16")
    assert kv_cache_bytes(half, 2, 33) == 2 * 3 * 2 * 2 * 16 * 64 * 2
