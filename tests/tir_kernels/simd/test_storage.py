"""float16 in memory, float32 in registers: conversions are instructions, and round as NumPy's."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
from tvm import tirx
from tvm.script import tirx as T  # noqa: N812 - TVMScript's own spelling

from tir_kernels.attention.dense import dense_paged_decode, dense_paged_prefill, merge_states
from tir_kernels.build import build_kernels
from tir_kernels.decode.shadow_append import shadow_append
from tir_kernels.decode.sparse_paged_decode import sparse_paged_decode
from tir_kernels.decode.widen_qkv import widen_qkv
from tir_kernels.features import CpuFeatures, cpu_features
from tir_kernels.rotary import split_rotary
from tir_kernels.shadow.prefill import shadow_paged_prefill
from tir_kernels.simd.storage import as_float32, as_stored
from tir_kernels.spec import AttentionSpec, PilotSpec, SpecError

from ..assembly import CONVERSION_CALL
from ..decode_harness import decode_spec
from ..dense_harness import HALF

EDGES = [0.0, -0.0, 1.0, 2049.0, 2051.0, 65504.0, 65519.0, 65520.0, 1e6, 2.0**-24, 2.0**-26]
"""Ties to even at 2,049 and 2,051; the largest float16 and what rounds to it or to infinity; the
smallest subnormal and what rounds to zero."""


@pytest.mark.parametrize("lanes", [1, 4, 8, 16])
def test_conversions_round_as_numpy_does(lanes: int, host_target: tvm.target.Target) -> None:
    @T.prim_func(s_tir=True)
    def convert(wide_handle: T.handle, half_handle: T.handle, back_handle: T.handle) -> None:
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
        n = T.int32()
        wide = T.match_buffer(wide_handle, (n,), "float32")
        half = T.match_buffer(half_handle, (n,), "float16")
        back = T.match_buffer(back_handle, (n,), "float32")
        for v in range(n // lanes):
            where = T.meta_var(v if lanes == 1 else T.ramp(v * lanes, 1, lanes))
            half[where] = as_stored(as_float32(wide[where]), "float16")
            back[where] = as_float32(half[where])

    rng = np.random.default_rng(lanes)
    numbers = np.float32([*EDGES, *rng.standard_normal(64 * 16 - len(EDGES))])
    half = tvm.runtime.tensor(np.empty(len(numbers), np.float16))
    back = tvm.runtime.tensor(np.empty(len(numbers), np.float32))
    build_kernels({"k": convert}, host_target)["k"](tvm.runtime.tensor(numbers), half, back)
    with np.errstate(over="ignore"):
        expected = numbers.astype(np.float16)
    np.testing.assert_array_equal(half.numpy().view(np.uint16), expected.view(np.uint16))
    np.testing.assert_array_equal(back.numpy(), expected.astype(np.float32))


TARGETS = {
    "haswell": ("x86_64-linux-gnu", ["vcvtph2ps", "vcvtps2ph"]),
    "znver4": ("x86_64-linux-gnu", ["vcvtph2ps", "vcvtps2ph"]),
    "cortex-a72": ("aarch64-linux-gnu", ["fcvtl", "fcvtn"]),
    "cortex-a76": ("aarch64-linux-gnu", ["fcvtl", "fcvtn"]),
}
"""Triples, and what converts vectors; the first ARM core has no arithmetic on float16."""


def _kernels(features: CpuFeatures) -> dict[str, tirx.PrimFunc]:
    plan = decode_spec(HALF, PilotSpec(score_bits=8, query_block=32))
    per_query = decode_spec(HALF)
    return {
        "paged_prefill": dense_paged_prefill(HALF, features),
        "paged_decode": dense_paged_decode(HALF, features),
        "merge_states": merge_states(HALF, features),
        "rotary": split_rotary(HALF, 10000.0, None),
        "lists_per_query": shadow_paged_prefill(per_query, features),
        "shared_lists": shadow_paged_prefill(plan, features),
        "shadow_append": shadow_append(plan, features),
        "sparse_decode": sparse_paged_decode(plan, features),
        "widen_qkv": widen_qkv(plan.attention, features),
    }


@pytest.mark.parametrize("cpu", TARGETS)
def test_no_function_converts(cpu: str) -> None:
    triple, instructions = TARGETS[cpu]
    target = tvm.target.Target({"kind": "llvm", "mtriple": triple, "mcpu": cpu})
    module = build_kernels(_kernels(cpu_features(target)), target)
    assembly = module.mod.inspect_source("asm")
    for instruction in instructions:
        assert instruction in assembly
    assert CONVERSION_CALL.findall(assembly) == []


def test_plain_x86_shows_what_is_looked_for() -> None:
    target = tvm.target.Target({"kind": "llvm", "mtriple": "x86_64-linux-gnu", "mcpu": "x86-64"})
    module = build_kernels({"k": merge_states(HALF, cpu_features(target))}, target)
    called = set(CONVERSION_CALL.findall(module.mod.inspect_source("asm")))
    assert called == {"__extendhfsf2", "__truncsfhf2"}


def test_other_dtypes_are_refused() -> None:
    with pytest.raises(SpecError, match="expected a dtype of float32, float16, got bfloat16"):
        AttentionSpec(1, 1, 16, 0.25, dtype="bfloat16")  # type: ignore[arg-type]
