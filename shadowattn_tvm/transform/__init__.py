"""Compiler passes, one a file; `pipeline` lists the phases they run in."""

from .attach_adreno_attention import AttachAdrenoAttention
from .attach_dense_attention import AttachDenseAttention
from .attach_shadow_attention import AttachShadowAttention
from .attach_sparse_decode import AttachSparseDecode
from .dispatch_linear import DispatchLinear
from .gpu_pipeline import build_gpu_pipeline
from .inline_call_tir import WORKSPACE_BYTES, InlineCallTIR
from .open_prefill_slots import OPEN_SLOT_FUNCTIONS, OpenPrefillSlots
from .pin_softmax_scale import PinSoftmaxScale
from .pipeline import PipelineOptions, build_pipeline, require_supported
from .pipeline_heads import PipelineHeads
from .stamp_stages import StampStages
from .three_machines import three_machine_prefill

__all__ = [
    "OPEN_SLOT_FUNCTIONS",
    "WORKSPACE_BYTES",
    "AttachAdrenoAttention",
    "AttachDenseAttention",
    "AttachShadowAttention",
    "AttachSparseDecode",
    "DispatchLinear",
    "InlineCallTIR",
    "OpenPrefillSlots",
    "PinSoftmaxScale",
    "PipelineHeads",
    "PipelineOptions",
    "StampStages",
    "build_gpu_pipeline",
    "build_pipeline",
    "require_supported",
    "three_machine_prefill",
]
