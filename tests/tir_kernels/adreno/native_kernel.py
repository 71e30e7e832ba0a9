"""The three machines' kernel, pipelined and compiled, with this machine's CPU as its host."""

from __future__ import annotations

import tvm

from shadowattn_tvm.compiler.targets import resolve_device
from shadowattn_tvm.device.opencl.native_host import NativeHost, SharedMemoryQueue
from shadowattn_tvm.device.opencl.program import ADRENO, OpenClProgram, compile_opencl
from shadowattn_tvm.transform import three_machine_prefill
from tir_kernels.features import cpu_features
from tir_kernels.spec import ShadowSpec


def native_program(spec: ShadowSpec, host: tvm.target.Target) -> OpenClProgram:
    """As for a phone, but for the CPU beside the GPU."""
    target = resolve_device(ADRENO).target.with_host(host)
    return compile_opencl(three_machine_prefill(spec, cpu_features(host)), "kernel", target)


def native_kernel(
    queue: SharedMemoryQueue, spec: ShadowSpec, host: tvm.target.Target
) -> NativeHost:
    return queue.load(native_program(spec, host), host)
