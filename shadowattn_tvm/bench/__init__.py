"""Timings: contenders side by side in one run, their results checked first."""

from .attention import AttentionGrid, bench_attention, skipped_contenders
from .decode_attention import bench_decode_attention
from .document import (
    AttentionBench,
    AttentionRow,
    DecodeBench,
    DecodeRow,
    PipelineBench,
    PipelineRow,
    SkippedAttention,
    save_bench,
)
from .pipeline import bench_pipeline
from .rig import HERE, Rig

__all__ = [
    "HERE",
    "AttentionBench",
    "AttentionGrid",
    "AttentionRow",
    "DecodeBench",
    "DecodeRow",
    "PipelineBench",
    "PipelineRow",
    "Rig",
    "SkippedAttention",
    "bench_attention",
    "bench_decode_attention",
    "bench_pipeline",
    "save_bench",
    "skipped_contenders",
]
