"""Workloads that are built and run in no time; none has a shape of a real model."""

from __future__ import annotations

from tir_kernels.spec import LinearSpec
from tir_kernels.tuning.workloads import GemmWorkload, ListWorkload

GEMM = GemmWorkload(LinearSpec(101, 70), 19)
QUANTIZED_GEMM = GemmWorkload(LinearSpec(50, 96, "q4f32_1"), 23)
LISTS = ListWorkload(head_dim=80, heads=3, block_queries=8, keys=64, kept=37, lists=3)

WORKLOADS = (GEMM, QUANTIZED_GEMM, LISTS)
