"""The paged-prefill slot of a phone whose NPU, CPU and GPU work on one layer at the same time."""

from __future__ import annotations

import tvm
from tvm import tirx

from tir_kernels.adreno.queued_prefill import queued_paged_prefill
from tir_kernels.features import CpuFeatures
from tir_kernels.spec import ShadowSpec

from .pipeline_heads import PipelineHeads, require_pipelinable

_ENQUEUERS = 1
"""A queue is in order: what several CPU workers put there wouldn't be in the planned one."""


def three_machine_prefill(spec: ShadowSpec, host: CpuFeatures) -> tirx.PrimFunc:
    """The kernel for an OpenCL target whose host has the features `host`: one task calls the
    process's `shadowattn.npu.pilot`, launch after launch; another selects each head's lists when
    they can be and enqueues attention over them, which the GPU computes meanwhile.

    To be compiled with `tir_kernels.build.pass_context`. Raises `CompileError` for plans without
    shared lists and hosts that have no pipelines.
    """
    require_pipelinable(spec, _ENQUEUERS, host)
    kernel = queued_paged_prefill(spec, host)
    name = str(kernel.attrs["global_symbol"])
    pipeline = tvm.transform.Sequential([PipelineHeads(_ENQUEUERS, host)])
    return pipeline(tvm.IRModule({name: kernel}))[name]
