"""The contenders' kernels, compiled for a rig; all of them fill the paged-prefill slot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import tvm
from tvm import tirx
from tvm.relax.frontend.nn.llm._prefill_kernels import _attention_prefill_cpu

from tir_kernels.attention.dense import dense_paged_prefill
from tir_kernels.baselines.selective_prefill import (
    block_sparse_paged_prefill,
    exact_sparse_paged_prefill,
)
from tir_kernels.baselines.static_int8_prefill import static_int8_paged_prefill
from tir_kernels.shadow.prefill import shadow_paged_prefill
from tir_kernels.spec import AttentionSpec, ShadowSpec, StaticInt8Spec

from ..transform import PipelineHeads, StampStages
from ..transform.pipeline_heads import require_pipelinable
from .document import BudgetedContender
from .launch_per_item import LaunchPerItem
from .rig import Kernel, Rig

_NAME = "kernel"

Schedule = Literal["pipelined", "per_launch", "sequential"]
"""How the stages of items follow each other."""

SCHEDULES: tuple[Schedule, ...] = ("pipelined", "per_launch", "sequential")


@dataclass(frozen=True)
class BudgetedKernel:
    """A kernel that reads the plan's budget, and how many CPU workers it has beside the NPU's
    stand-in."""

    name: BudgetedContender
    workers: int
    kernel: Kernel


def budgeted_kernels(
    rig: Rig, spec: ShadowSpec, workers: Sequence[int], with_baselines: bool
) -> list[BudgetedKernel]:
    """The paper's sparse baselines, if wanted, and shadowAttn with every number of workers.

    Raises `CompileError` for a plan that can't be pipelined.
    """
    shadow = [BudgetedKernel("shadow", each, shadow_kernel(rig, spec, each)) for each in workers]
    if not with_baselines:
        return shadow
    exact = _built(rig, exact_sparse_paged_prefill(spec, rig.features))
    blocks = _built(rig, block_sparse_paged_prefill(spec, rig.features))
    return [
        BudgetedKernel("cg_sparse", 0, exact),
        BudgetedKernel("cg_block_sparse", 0, blocks),
        *shadow,
    ]


def dense_kernel(rig: Rig, spec: AttentionSpec) -> Kernel:
    """Exact attention to everything: C/G-Full."""
    return _built(rig, dense_paged_prefill(spec, rig.features))


def static_int8_kernel(rig: Rig, spec: StaticInt8Spec) -> Kernel:
    """The whole attention in INT8: NPU-Full."""
    return _built(rig, static_int8_paged_prefill(spec, rig.features))


def stock_kernel(rig: Rig, spec: AttentionSpec) -> Kernel:
    """The kernel that TVM and MLC-LLM put into the slot on CPUs."""
    no_scaling: dict[str, object] = {}
    return _built(
        rig,
        _attention_prefill_cpu(
            spec.num_kv_heads, spec.num_q_heads, spec.head_dim, spec.dtype, False, no_scaling
        ),
    )


def shadow_kernel(rig: Rig, spec: ShadowSpec, workers: int) -> Kernel:
    """shadowAttn; pipelined if there are workers beside the NPU's stand-in.

    Raises `CompileError` for a plan that can't be pipelined.
    """
    passes: list[tvm.transform.Pass] = []
    if workers > 0:
        require_pipelinable(spec, workers, rig.features)
        passes.append(PipelineHeads(workers, rig.features))
    return _transformed(rig, spec, passes)


def stamped_kernels(
    rig: Rig, spec: ShadowSpec, schedules: Sequence[Schedule] = SCHEDULES
) -> dict[Schedule, Kernel]:
    """shadowAttn with stamps: pipelined over two threads in one launch, or in a launch for every
    item, or each item's stages one after the other.

    Raises `CompileError` for a plan that can't be pipelined.
    """
    features = rig.features
    require_pipelinable(spec, 1, features)
    ways: dict[Schedule, list[tvm.transform.Pass]] = {
        "pipelined": [PipelineHeads(1, features)],
        "per_launch": [LaunchPerItem()],
        "sequential": [],
    }
    return {way: _transformed(rig, spec, [StampStages(), *ways[way]]) for way in schedules}


def _transformed(rig: Rig, spec: ShadowSpec, passes: list[tvm.transform.Pass]) -> Kernel:
    kernel = shadow_paged_prefill(spec, rig.features)
    module = tvm.IRModule({_NAME: kernel.with_attr("global_symbol", _NAME)})
    return _built(rig, tvm.transform.Sequential(passes)(module)[_NAME])


def _built(rig: Rig, kernel: tirx.PrimFunc) -> Kernel:
    return rig.build({_NAME: kernel})[_NAME]
