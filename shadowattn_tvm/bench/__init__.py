"""Timings: contenders side by side in one run, their results checked first."""

from .attention import AttentionGrid, bench_attention
from .decode_attention import bench_decode_attention
from .document import (
    AttentionBench,
    AttentionRow,
    DecodeBench,
    DecodeRow,
    PipelineBench,
    PipelineRow,
    save_bench,
)
from .pipeline import bench_pipeline

__all__ = [
    "AttentionBench",
    "AttentionGrid",
    "AttentionRow",
    "DecodeBench",
    "DecodeRow",
    "PipelineBench",
    "PipelineRow",
    "bench_attention",
    "bench_decode_attention",
    "bench_pipeline",
    "save_bench",
]
