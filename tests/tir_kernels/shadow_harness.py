"""What the tests of the pilot, top-k, sparse attention and their composition share."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tvm

from tir_kernels.build import build_kernels
from tir_kernels.constants import INT8_QMAX
from tir_kernels.features import AVX2, AVX512, GENERIC, CpuFeatures, cpu_features
from tir_kernels.pilot.int8_dot import int8_dot_method
from tir_kernels.pilot.key_block import quantize_keys
from tir_kernels.pilot.scores import pilot_scores
from tir_kernels.pilot.top_k import index_slack
from tir_kernels.pilot.top_k_stage import top_k
from tir_kernels.shadow.prefill import shadow_paged_prefill
from tir_kernels.shadow.sparse_attention import sparse_attention
from tir_kernels.spec import AttentionSpec, ShadowSpec, query_strides

Array = npt.NDArray[Any]

WIDE = CpuFeatures(isa="avx512", lanes=16, vector_registers=32, int8_dot="widening")
"""AVX512's ways of doing everything but the INT8 dot product; LLVM splits its vectors for any
host, so that they can be tested on every machine."""

MIDDLE = CpuFeatures(isa="avx2", lanes=8, vector_registers=16, int8_dot="widening")
"""AVX2's, likewise."""

VARIANTS = ("host", "generic", "wide")


X86_VARIANTS = ("generic", "avx2", "avx512")
"""Vector units by name; what the host lacks of them is done in plain integers, or split."""


def features_of(variant: str, target: tvm.target.Target) -> CpuFeatures:
    """The vector unit that a test builds for; all of them run on the host."""
    host = cpu_features(target)
    return {
        "host": host,
        "generic": GENERIC,
        "wide": WIDE,
        "avx2": AVX2 if host.isa in ("avx2", "avx512") else MIDDLE,
        "avx512": AVX512 if host.isa == "avx512" else WIDE,
    }[variant]


every_variant = pytest.mark.parametrize("variant", VARIANTS)
every_x86_variant = pytest.mark.parametrize("variant", X86_VARIANTS)


@cache
def stage(
    name: str,
    spec: AttentionSpec | None,
    variant: str,
    target: tvm.target.Target,
    quant_max: int = INT8_QMAX,
) -> tvm.runtime.Executable:
    """One stage, compiled once per session; top-k needs no geometry."""
    features = features_of(variant, target)
    if spec is None:
        kernel = {
            "top_k": lambda: top_k(features),
            "top_k_masked": lambda: top_k(features, masked=True),
            "top_k_bytes": lambda: top_k(features, dtype="int8"),
            "top_k_bytes_masked": lambda: top_k(features, masked=True, dtype="int8"),
        }[name]()
    else:
        kernel = {
            "quantize_keys": lambda: quantize_keys(spec, features, quant_max),
            "pilot_scores": lambda: pilot_scores(spec, features, quant_max),
            "sparse_attention": lambda: sparse_attention(spec, features),
        }[name]()
    return build_kernels({name: kernel}, target)


@cache
def shadow_module(
    spec: ShadowSpec, variant: str, target: tvm.target.Target
) -> tvm.runtime.Executable:
    """The composition, compiled once per session."""
    kernel = shadow_paged_prefill(spec, features_of(variant, target))
    return build_kernels({"shadow_prefill": kernel}, target)


def tensor(array: Array) -> tvm.runtime.Tensor:
    return tvm.runtime.tensor(np.ascontiguousarray(array))


def filled(shape: tuple[int, ...], dtype: str, value: float) -> tvm.runtime.Tensor:
    """An output before the call: whatever isn't written shows."""
    return tensor(np.full(shape, value, dtype))


def run_quantize_keys(
    spec: AttentionSpec,
    variant: str,
    target: tvm.target.Target,
    rows: Array,
    row_table: Array,
    row_offset: int,
    scales: tuple[float, float, float],
    quant_max: int = INT8_QMAX,
) -> tuple[tvm.runtime.Tensor, np.float32]:
    """The packed keys, padded to whole register tiles, and the chosen scale."""
    dot = int8_dot_method(features_of(variant, target), quant_max)
    tiles = -(-len(row_table) // dot.register_keys)
    shape = (tiles * dot.register_blocks, spec.head_dim // dot.group, dot.lanes * dot.group)
    packed, chosen = filled(shape, dot.key_dtype, 77), filled((1,), "float32", np.nan)
    stage("quantize_keys", spec, variant, target, quant_max)["quantize_keys"](
        tensor(rows),
        tensor(row_table.astype(np.int32)),
        tensor(np.array(scales, np.float32)),
        packed,
        chosen,
        row_offset,
    )
    return packed, chosen.numpy()[0]


def unpack_keys(
    packed: Array, variant: str, target: tvm.target.Target, quant_max: int = INT8_QMAX
) -> Array:
    """(blocks, D / group, lanes * group) -> (blocks * lanes, D) int8."""
    dot = int8_dot_method(features_of(variant, target), quant_max)
    blocks, steps, _ = packed.shape
    keys = packed.astype(np.int32).reshape(blocks, steps, dot.lanes, dot.group) - dot.key_offset
    return keys.transpose(0, 2, 1, 3).reshape(blocks * dot.lanes, steps * dot.group).astype(np.int8)


def run_pilot_scores(
    spec: AttentionSpec,
    variant: str,
    target: tvm.target.Target,
    q: Array,
    head: int,
    scales: tuple[float, float, float],
    packed: tvm.runtime.Tensor,
    quant_max: int = INT8_QMAX,
) -> tuple[Array, np.float32]:
    """(m, padded n) int32 scores, and the chosen scale."""
    dot = int8_dot_method(features_of(variant, target), quant_max)
    padded_queries = -(-len(q) // dot.register_queries) * dot.register_queries
    scores = filled((padded_queries, packed.shape[0] * dot.lanes), "int32", -77)
    chosen = filled((1,), "float32", np.nan)
    stage("pilot_scores", spec, variant, target, quant_max)["pilot_scores"](
        tensor(q), tensor(np.array(scales, np.float32)), packed, scores, chosen, head
    )
    return scores.numpy()[: len(q)], chosen.numpy()[0]


def run_top_k(
    variant: str,
    target: tvm.target.Target,
    scores: Array,
    limits: Array,
    k: int,
    mask: Array | None = None,
) -> list[Array]:
    """The selected indices of every row of scores, int8 or int32."""
    name = ("top_k_bytes" if scores.dtype == np.int8 else "top_k") + (
        "_masked" * (mask is not None)
    )
    rows, positions = scores.shape
    slack = index_slack(features_of(variant, target))
    indices = filled((rows, min(k, positions) + slack), "int32", -77)
    counts = filled((rows,), "int32", -77)
    masks = [] if mask is None else [tensor(mask.astype(np.uint8))]
    stage(name, None, variant, target)[name](
        tensor(scores),
        tensor(limits.astype(np.int32)),
        *masks,
        indices,
        counts,
        k,
    )
    return [row[:count] for row, count in zip(indices.numpy(), counts.numpy(), strict=True)]


def with_strides(spec: ShadowSpec) -> ShadowSpec:
    """`spec` with every stride that its blocks allow, in turn from list owner to list owner; layers
    differ."""
    strides = query_strides(spec.pilot.query_block)
    unit = spec.attention.group_size if spec.pilot.share_group else 1
    layers = tuple(
        tuple(
            replace(head, query_stride=strides[(layer + index // unit) % len(strides)])
            for index, head in enumerate(heads)
        )
        for layer, heads in enumerate(spec.heads)
    )
    return replace(spec, heads=layers)
