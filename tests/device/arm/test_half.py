"""Kernels that store queries, keys, values and outputs as float16, on CPUs that have half floats.

Arithmetic stays float32, so the twins are those of float32, given the same float16 numbers.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.tir_kernels import test_rotary
from tests.tir_kernels.attention import (
    test_dense_paged_decode,
    test_dense_paged_prefill,
    test_dense_ragged_prefill,
    test_merge_states,
)
from tests.tir_kernels.decode import test_shadow_append, test_sparse_paged_decode
from tests.tir_kernels.decode_harness import MIXED_LAYER as MIXED_DECODE_LAYER
from tests.tir_kernels.decode_harness import decode_spec
from tests.tir_kernels.dense_harness import HALF, HALF_ODD_DIMS, output_tolerance, spec_id
from tests.tir_kernels.linear import test_matmul
from tests.tir_kernels.shadow import test_lists, test_prefill, test_sparse_attention
from tir_kernels.attention.dense import dense_paged_decode
from tir_kernels.features import cpu_features
from tir_kernels.reference import attention as twin

from .machines import Machine

pytestmark = pytest.mark.arm


@pytest.mark.parametrize("spec", [HALF, HALF_ODD_DIMS], ids=spec_id)
def test_dense_attention(spec, phone: Machine) -> None:
    test_dense_ragged_prefill.check(spec, phone.target, [3, 0, 21], [9, 2, 21], causal=True)
    test_dense_paged_prefill.check(spec, phone.target, [0, 5, 13], [7, 0, 37], causal=False)
    test_dense_paged_decode.check(spec, phone.target, [0, 3, 65, 0, 16])


def test_parts_merge(phone: Machine) -> None:
    inputs = test_merge_states.parts(HALF_ODD_DIMS, 7, 1.0)
    output, lse = test_merge_states.merge(HALF_ODD_DIMS, phone.target, *inputs)
    want_output, want_lse = twin.merge_states(*inputs)
    np.testing.assert_allclose(output, want_output, **output_tolerance(HALF_ODD_DIMS))
    np.testing.assert_allclose(lse, want_lse, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("pilot", ["plain", "everything"])
def test_keys_are_quantized_as_the_float32_they_stand_for(pilot: str, phone: Machine) -> None:
    geometry = replace(test_lists.SMALL, dtype="float16")
    spec = test_lists.plan_of(geometry, test_lists.PILOTS[pilot], centered=pilot == "everything")
    test_lists.check(spec, phone.target, *test_lists.draw(geometry, 19, 83))


def test_sparse_attention_per_query(phone: Machine) -> None:
    rng = np.random.default_rng(2)
    lengths = [0, 1, 7, 8, 17, 60]
    for spec in (HALF, HALF_ODD_DIMS):
        q, k, v = test_sparse_attention.draw(spec, len(lengths), 60, rng)
        lists = [test_sparse_attention.random_list(60, length, rng) for length in lengths]
        test_sparse_attention.check(spec, "host", phone.target, q, k, v, lists)


@pytest.mark.parametrize("pilot", ["per query", "group-block-32"])
def test_shadow_prefill(pilot: str, phone: Machine) -> None:
    pilots = {"per query": test_prefill.PLAIN, **test_prefill.SHARING}
    spec = test_prefill.shadow_spec(HALF, pilots[pilot])
    for layer in (test_prefill.SPARSE_LAYER, test_prefill.MIXED_LAYER):
        test_prefill.check(spec, phone.target, layer, [0, 9, 35], [20, 0, 77])


def test_sparse_decode(phone: Machine) -> None:
    spec = decode_spec(HALF)
    test_shadow_append.check(spec, phone.target, 21, MIXED_DECODE_LAYER)
    test_sparse_paged_decode.check(spec, phone.target, MIXED_DECODE_LAYER, [0, 3, 90, 16])


def test_rotary_embedding(phone: Machine) -> None:
    test_rotary.test_kernel_equals_twin(7, 1, 80, "float16", phone.target)


def test_linear_layers(phone: Machine) -> None:
    by_format = {spec.quantization: spec for spec in test_matmul.HALF_SPECS[:8]}
    for spec in by_format.values():
        layer = test_matmul._layer(spec, phone.target, cpu_features(phone.target))
        for num_tokens in (0, 1, 17):
            x = test_matmul._tokens(spec, num_tokens)
            test_matmul._assert_close(layer, x, layer(x))
        x = test_matmul._tokens(spec, 1)
        test_matmul._assert_close(layer, x, layer(x, decode=True))


def test_the_newest_cpu_runs_what_is_compiled_for_phones(any_arm64: Machine) -> None:
    spec = test_prefill.shadow_spec(HALF, test_prefill.SHARING["group-block-32"])
    test_prefill.check(spec, any_arm64.target, test_prefill.MIXED_LAYER, [35], [77])
    test_dense_paged_decode.check(HALF, any_arm64.target, [3, 65])
    decode = decode_spec(HALF)
    test_sparse_paged_decode.check(decode, any_arm64.target, MIXED_DECODE_LAYER, [90])


def test_vectors_are_converted_at_once(phone: Machine) -> None:
    kernel = {"d": dense_paged_decode(HALF, cpu_features(phone.target))}
    assembly = phone.build(kernel).disassembled()
    assert "fcvtl\tv" in assembly
    assert "bl\t__extendhfsf2" not in assembly
