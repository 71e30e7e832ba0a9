"""The compilation pipeline, phase by phase: the table of contents of this package."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tvm
from tvm import relax, tirx

from tir_kernels.features import CpuFeatures
from tir_kernels.rotary import Llama3Scaling
from tir_kernels.spec import AttentionSpec, ShadowSpec

from .attach_bounds import AttachBounds
from .attach_dense_attention import AttachDenseAttention
from .attach_engine_functions import AttachEngineFunctions
from .attach_metadata import AttachMetadata
from .attach_shadow_attention import AttachShadowAttention, require_attachable
from .attach_sparse_decode import AttachSparseDecode
from .dispatch_linear import DispatchLinear
from .kv_cache_slots import find_creation
from .open_prefill_slots import OpenPrefillSlots
from .pipeline_heads import PipelineHeads, require_pipelinable
from .polynomial_exponentials import PolynomialExponentials
from .progress import BeginPhase, DumpModule, PhaseCallback
from .schedule_fallback import ScheduleFallback
from .stamp_stages import StampStages


@dataclass(frozen=True)
class PipelineOptions:
    """Everything the pipeline needs to know.

    Attributes
    ----------
    target, features : what to compile for.
    attention : attention geometry of the model; with shadow rows, decode is sparse.
    rope_theta, rope_scaling : rotary embedding.
    shadow : the plan's parameters, of the same geometry; None compiles the dense library.
    hidden_size, prefill_chunk_size, context_window_size, max_batch_size : sizes; the last three
        are limits of the library.
    metadata : what `_metadata` will say, without `memory_usage`.
    report : told when each phase begins.
    debug_dump : folder for the IR after each phase, or None.
    pipeline_workers : CPU tasks beside that of the NPU, if heads are pipelined; 0 = they aren't.
    trace : stamp the stages (see `StampStages`); only where there are workers.
    open_prefill : leave the prefill slots to functions found when the library is loaded; not with
        a plan.
    """

    target: tvm.target.Target
    features: CpuFeatures
    attention: AttentionSpec
    rope_theta: float
    rope_scaling: Llama3Scaling | None
    shadow: ShadowSpec | None
    hidden_size: int
    prefill_chunk_size: int
    context_window_size: int
    max_batch_size: int
    metadata: Mapping[str, Any]
    report: PhaseCallback
    debug_dump: Path | None = None
    pipeline_workers: int = 0
    trace: bool = False
    open_prefill: bool = False


def require_supported(module: tvm.IRModule, options: PipelineOptions) -> None:
    """Raise `CompileError`, by name, for a traced model that the pipeline can't compile."""
    find_creation(module)
    if options.shadow is not None:
        require_attachable(module, options.shadow)
        if options.pipeline_workers > 0:
            require_pipelinable(options.shadow, options.pipeline_workers, options.features)


def build_pipeline(options: PipelineOptions) -> tvm.transform.Pass:
    """All passes from a traced model (see `require_supported`) to VM-level Relax and scheduled
    TIR."""
    phases = {
        "attach attention": _attach_attention(options),
        "attach engine functions": _attach_engine_functions(options),
        "dispatch linear layers": [DispatchLinear(options.features)],
        "lower to TIR": lower_to_tir(),
        "schedule the rest": [PolynomialExponentials(), ScheduleFallback()],
        "lower to VM bytecode": lower_to_vm(options),
    }
    return in_phases(phases, options)


def in_phases(
    phases: Mapping[str, Sequence[tvm.transform.Pass]], options: PipelineOptions
) -> tvm.transform.Pass:
    """All passes, one phase after the other, each of them announced and dumped."""
    passes: list[tvm.transform.Pass] = [tirx.transform.BindTarget(options.target)]
    for number, (name, steps) in enumerate(phases.items()):
        dump = DumpModule(f"{number}-{name.replace(' ', '-')}.py", options.debug_dump)
        passes += [BeginPhase(name, options.report), *steps, dump]
    return tvm.transform.Sequential(passes)


def _attach_attention(options: PipelineOptions) -> list[tvm.transform.Pass]:
    dense = AttachDenseAttention(
        options.attention, options.features, options.rope_theta, options.rope_scaling
    )
    if options.open_prefill:
        assert options.shadow is None, "an open library has no plan of its own"
        return [dense, OpenPrefillSlots()]
    if options.shadow is None:
        return [dense]
    has_npu = options.pipeline_workers > 0
    shadow: list[tvm.transform.Pass] = [
        AttachShadowAttention(options.shadow, options.features, npu=has_npu)
    ]
    if options.trace:
        shadow.append(StampStages())
    if has_npu:
        shadow.append(PipelineHeads(options.pipeline_workers, options.features))
    if options.attention.shadow_rows > 0:
        shadow.append(AttachSparseDecode(options.shadow, options.features))
    return [dense, *shadow]


def _attach_engine_functions(options: PipelineOptions) -> list[tvm.transform.Pass]:
    return [
        AttachEngineFunctions(
            options.features,
            options.prefill_chunk_size,
            options.hidden_size,
            options.attention.dtype,
        ),
        AttachBounds(shape_bounds(options)),
    ]


def shape_bounds(options: PipelineOptions) -> dict[str, int]:
    """The largest value of each named shape variable."""
    return {
        "seq_len": options.prefill_chunk_size,
        "total_seq_len": options.context_window_size,
        "batch_size": options.max_batch_size,
    }


def lower_to_tir() -> list[tvm.transform.Pass]:
    """From operators to fused PrimFuncs, not yet scheduled."""
    return [
        relax.transform.LegalizeOps(),
        relax.transform.AnnotateTIROpPattern(),
        relax.transform.FoldConstant(),
        relax.transform.FuseOps(),
        relax.transform.FuseTIR(),
        relax.transform.DeadCodeElimination(),
    ]


def lower_to_vm(options: PipelineOptions) -> list[tvm.transform.Pass]:
    """From calls of PrimFuncs to the VM's instructions, memory planned."""
    return [
        relax.transform.RewriteDataflowReshape(),
        relax.transform.ToNonDataflow(),
        relax.transform.RemovePurityChecking(),
        relax.transform.CallTIRRewrite(),
        relax.transform.StaticPlanBlockMemory(),
        AttachMetadata(options.metadata),
        relax.transform.LowerAllocTensor(),
        relax.transform.KillAfterLastUse(),
        relax.transform.LowerRuntimeBuiltin(),
        relax.transform.VMShapeLower(),
        relax.transform.AttachGlobalSymbol(),
    ]
