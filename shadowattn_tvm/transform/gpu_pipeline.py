"""The compilation pipeline for GPUs, phase by phase.

Attention is ours, in a module of its own; everything else has TVM's GPU schedules.
"""

from __future__ import annotations

import tvm
from tvm import relax, tirx
from tvm.s_tir import dlight

from .attach_adreno_attention import AttachAdrenoAttention
from .attach_bounds import AttachBounds
from .fuse_dequantize import FuseDequantize
from .pin_softmax_scale import PinSoftmaxScale
from .pipeline import PipelineOptions, in_phases, lower_to_tir, lower_to_vm, shape_bounds


def build_gpu_pipeline(options: PipelineOptions) -> tvm.transform.Pass:
    """All passes from a traced model (see `require_supported`) to VM-level Relax and scheduled
    TIR, to be run in `tir_kernels.build.gpu_pass_context`. Raises `CompileError` for a model or a
    plan that we have no kernels for."""
    return in_phases(
        {
            "attach attention": [
                PinSoftmaxScale(options.attention.sm_scale),
                AttachAdrenoAttention(
                    options.attention, options.shadow, options.target, system_lib=False
                ),
                AttachBounds(shape_bounds(options)),
            ],
            "lower to TIR": [
                relax.transform.FuseTransposeMatmul(),
                *lower_to_tir(),
                FuseDequantize(),
                relax.transform.DeadCodeElimination(),
            ],
            "schedule": _schedule(),
            "lower to VM bytecode": lower_to_vm(options),
        },
        options,
    )


def _schedule() -> list[tvm.transform.Pass]:
    """TVM's rules, in the order MLC-LLM has them; the first that applies to a kernel is taken."""
    rules = (
        dlight.gpu.Matmul(),
        dlight.gpu.GEMV(),
        dlight.gpu.Reduction(),
        dlight.gpu.GeneralReduction(),
        dlight.gpu.Fallback(),
    )
    return [dlight.ApplyDefaultSchedule(*rules), tirx.transform.ForceNarrowIndexToInt32()]
