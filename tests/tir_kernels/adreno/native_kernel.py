"""The three machines' kernel, pipelined and compiled, with this machine's CPU as its host."""

from __future__ import annotations

import tvm
from tvm import tirx

from shadowattn_tvm.device.opencl.native_host import NativeHost, SharedMemoryQueue
from shadowattn_tvm.device.opencl.program import ADRENO, OpenClProgram, compile_opencl
from shadowattn_tvm.transform import PipelineHeads
from tir_kernels.adreno.queued_prefill import queued_paged_prefill
from tir_kernels.features import CpuFeatures, cpu_features
from tir_kernels.spec import ShadowSpec


def pipelined(spec: ShadowSpec, host: CpuFeatures) -> tirx.PrimFunc:
    kernel = queued_paged_prefill(spec, host).with_attr("global_symbol", "kernel")
    return PipelineHeads(1, host)(tvm.IRModule({"kernel": kernel}))["kernel"]


def native_program(spec: ShadowSpec, host: tvm.target.Target) -> OpenClProgram:
    """As for a phone, but for the CPU beside the GPU."""
    target = tvm.target.Target({**ADRENO, "host": dict(host.export())})
    return compile_opencl(pipelined(spec, cpu_features(host)), "kernel", target)


def native_kernel(
    queue: SharedMemoryQueue, spec: ShadowSpec, host: tvm.target.Target
) -> NativeHost:
    return queue.load(native_program(spec, host), host)
