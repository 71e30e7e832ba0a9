"""Compiler passes, one a file; `pipeline` lists the phases they run in."""

from .attach_dense_attention import AttachDenseAttention
from .attach_shadow_attention import AttachShadowAttention
from .dispatch_linear import DispatchLinear
from .pipeline import PipelineOptions, build_pipeline, require_supported

__all__ = [
    "AttachDenseAttention",
    "AttachShadowAttention",
    "DispatchLinear",
    "PipelineOptions",
    "build_pipeline",
    "require_supported",
]
