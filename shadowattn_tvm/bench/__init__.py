"""Timings: contenders side by side in one run, their results checked first."""

from .attention import AttentionGrid, bench_attention
from .document import AttentionBench, AttentionRow, save_bench

__all__ = ["AttentionBench", "AttentionGrid", "AttentionRow", "bench_attention", "save_bench"]
