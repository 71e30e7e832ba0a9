"""The contenders' kernels, compiled for this machine; all of them fill the paged-prefill slot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
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
from tir_kernels.build import build_kernels
from tir_kernels.features import cpu_features
from tir_kernels.shadow.prefill import shadow_paged_prefill
from tir_kernels.spec import AttentionSpec, ShadowSpec, StaticInt8Spec

from ..compiler import resolve_target
from ..transform import PipelineHeads, StampStages
from ..transform.pipeline_heads import require_pipelinable
from .document import BudgetedContender
from .launch_per_item import LaunchPerItem

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
    kernel: tvm.runtime.Function


def budgeted_kernels(
    spec: ShadowSpec, workers: Sequence[int], with_baselines: bool
) -> list[BudgetedKernel]:
    """The paper's sparse baselines, if wanted, and shadowAttn with every number of workers.

    Raises `CompileError` for a plan that can't be pipelined.
    """
    features = cpu_features(resolve_target("host"))
    shadow = [BudgetedKernel("shadow", each, shadow_kernel(spec, each)) for each in workers]
    if not with_baselines:
        return shadow
    exact = _built(exact_sparse_paged_prefill(spec, features))
    blocks = _built(block_sparse_paged_prefill(spec, features))
    return [
        BudgetedKernel("cg_sparse", 0, exact),
        BudgetedKernel("cg_block_sparse", 0, blocks),
        *shadow,
    ]


@cache
def dense_kernel(spec: AttentionSpec) -> tvm.runtime.Function:
    """Exact attention to everything: C/G-Full."""
    return _built(dense_paged_prefill(spec, cpu_features(resolve_target("host"))))


def static_int8_kernel(spec: StaticInt8Spec) -> tvm.runtime.Function:
    """The whole attention in INT8: NPU-Full."""
    return _built(static_int8_paged_prefill(spec, cpu_features(resolve_target("host"))))


def stock_kernel(spec: AttentionSpec) -> tvm.runtime.Function:
    """The kernel that TVM and MLC-LLM put into the slot on CPUs."""
    no_scaling: dict[str, object] = {}
    return _built(
        _attention_prefill_cpu(
            spec.num_kv_heads, spec.num_q_heads, spec.head_dim, spec.dtype, False, no_scaling
        )
    )


def shadow_kernel(spec: ShadowSpec, workers: int) -> tvm.runtime.Function:
    """shadowAttn; pipelined if there are workers beside the NPU's stand-in.

    Raises `CompileError` for a plan that can't be pipelined.
    """
    features = cpu_features(resolve_target("host"))
    passes: list[tvm.transform.Pass] = []
    if workers > 0:
        require_pipelinable(spec, workers, features)
        passes.append(PipelineHeads(workers, features))
    return _transformed(spec, passes)


def stamped_kernels(
    spec: ShadowSpec, schedules: Sequence[Schedule] = SCHEDULES
) -> dict[Schedule, tvm.runtime.Function]:
    """shadowAttn with stamps: pipelined over two threads in one launch, or in a launch for every
    item, or each item's stages one after the other.

    Raises `CompileError` for a plan that can't be pipelined.
    """
    features = cpu_features(resolve_target("host"))
    require_pipelinable(spec, 1, features)
    ways: dict[Schedule, list[tvm.transform.Pass]] = {
        "pipelined": [PipelineHeads(1, features)],
        "per_launch": [LaunchPerItem()],
        "sequential": [],
    }
    return {way: _transformed(spec, [StampStages(), *ways[way]]) for way in schedules}


def _transformed(spec: ShadowSpec, passes: list[tvm.transform.Pass]) -> tvm.runtime.Function:
    kernel = shadow_paged_prefill(spec, cpu_features(resolve_target("host")))
    module = tvm.IRModule({_NAME: kernel.with_attr("global_symbol", _NAME)})
    return _built(tvm.transform.Sequential(passes)(module)[_NAME])


def _built(kernel: tirx.PrimFunc) -> tvm.runtime.Function:
    return build_kernels({_NAME: kernel}, resolve_target("host"))[_NAME]
