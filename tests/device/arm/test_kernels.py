"""Every kernel for ARM against its NumPy twin, on the device.

The inputs are those of the kernels' own tests, cut down to what emulation does in seconds: ragged
batches with holes, lengths that are multiples of nothing, k from none to all, ties.
"""

from __future__ import annotations

import numpy as np
import pytest

from tests.tir_kernels import test_rotary
from tests.tir_kernels.attention import (
    test_dense_paged_decode,
    test_dense_paged_prefill,
    test_dense_ragged_prefill,
    test_merge_states,
)
from tests.tir_kernels.baselines import test_static_int8_prefill
from tests.tir_kernels.decode import test_sparse_paged_decode
from tests.tir_kernels.decode_harness import MIXED_LAYER as MIXED_DECODE_LAYER
from tests.tir_kernels.decode_harness import decode_spec
from tests.tir_kernels.dense_harness import HALF_ODD_DIMS, ODD_DIMS, SMOLLM2
from tests.tir_kernels.linear import test_matmul
from tests.tir_kernels.pilot import test_kept_keys, test_scores, test_top_k
from tests.tir_kernels.shadow import test_lists, test_prefill, test_sparse_attention
from tir_kernels.features import cpu_features
from tir_kernels.reference import attention as twin
from tir_kernels.spec import AttentionSpec, PilotSpec

from .machines import Machine

pytestmark = pytest.mark.arm

HOST = "host"
"""The vector unit of the target, in the harnesses' words."""


@pytest.mark.parametrize("spec", [SMOLLM2, ODD_DIMS], ids=["d64", "d80"])
def test_dense_attention(spec, machine: Machine) -> None:
    test_dense_ragged_prefill.check(spec, machine.target, [3, 0, 21], [9, 2, 21], causal=True)
    test_dense_paged_prefill.check(spec, machine.target, [0, 5, 13], [7, 0, 37], causal=False)
    test_dense_paged_decode.check(spec, machine.target, [0, 3, 65, 0, 16])


def test_parts_merge(machine: Machine) -> None:
    inputs = test_merge_states.parts(ODD_DIMS, 7, 1.0)
    got = test_merge_states.merge(ODD_DIMS, machine.target, *inputs)
    for part, want in zip(got, twin.merge_states(*inputs), strict=True):
        np.testing.assert_allclose(part, want, rtol=2e-5, atol=2e-5)


@pytest.mark.parametrize("head_dim", [64, 80])
def test_pilot_quantizes_and_scores(head_dim: int, pilot_machine: Machine) -> None:
    (spec,) = (each for each in test_scores.GEOMETRIES if each.head_dim == head_dim)
    rng = np.random.default_rng(head_dim)
    for num_queries, num_keys in [(1, 1), (13, 71)]:
        q = rng.standard_normal((num_queries, spec.num_q_heads, head_dim), dtype=np.float32)
        k = rng.standard_normal((num_keys, head_dim), dtype=np.float32)
        test_scores.check(spec, q, k, (0.02, 0.025), HOST, pilot_machine.target)
        extreme = [1e6 * np.sign(x) for x in (q, k)]
        test_scores.check(spec, *extreme, (0.02, 0.02), HOST, pilot_machine.target)


@pytest.mark.parametrize("masked", [False, True], ids=["plain", "masked"])
@pytest.mark.parametrize(
    ("draw", "kinds"),
    [
        (test_top_k.scores_of, ("spread", "few values", "all equal", "extremes")),
        (test_top_k.bytes_of, ("spread", "few values", "all equal", "saturated")),
    ],
    ids=["int32", "int8"],
)
def test_top_k_selects(draw, kinds: tuple[str, ...], masked: bool, machine: Machine) -> None:
    rng = np.random.default_rng(5)
    for kind in kinds:
        for positions in (1, 33, 200):
            scores = draw(kind, (3, positions), rng)
            limits = np.array([positions, 0, positions + 5])
            mask = rng.integers(0, 3, scores.shape) if masked else None
            for k in {0, 1, positions // 5, positions, positions + 9}:
                test_top_k.check(scores, limits, k, mask, HOST, machine.target)


@pytest.mark.parametrize("pilot", ["plain", "int4", "int8-scores", "group-block-16", "everything"])
def test_lists_and_votes(pilot: str, pilot_machine: Machine) -> None:
    spec = test_lists.plan_of(test_lists.SMALL, test_lists.PILOTS[pilot], centered=True)
    q, k = test_lists.draw(test_lists.SMALL, 19, 83)
    test_lists.check(spec, pilot_machine.target, q, k)


@pytest.mark.parametrize(
    ("q_heads", "kv_heads", "head_dim"), [(2, 2, 256), (4, 2, 128), (7, 1, 80), (8, 1, 16)]
)
def test_matrix_products_of_every_geometry(
    q_heads: int, kv_heads: int, head_dim: int, matrix: Machine
) -> None:
    geometry = AttentionSpec(q_heads, kv_heads, head_dim, sm_scale=head_dim**-0.5)
    spec = test_lists.plan_of(geometry, test_lists.PILOTS["group-block-16"])
    for num_queries, num_keys in ((1, 1), (2, 16), (33, 131)):
        q, k = test_lists.draw(geometry, num_queries, num_keys)
        test_lists.check(spec, matrix.target, q, k)
        test_lists.check(spec, matrix.target, np.ones_like(q), np.ones_like(k))  # all tie


def test_matrix_products_of_an_attention_in_int8(matrix: Machine) -> None:
    layer = test_static_int8_prefill.FINE_LAYER
    inputs = test_static_int8_prefill.draw(SMOLLM2, [0, 9, 35], [20, 0, 77])
    test_static_int8_prefill.check(matrix.target, SMOLLM2, layer, *inputs)


def test_sparse_attention_per_query(machine: Machine) -> None:
    rng = np.random.default_rng(2)
    lengths = [0, 1, 7, 8, 17, 60]
    for spec in (SMOLLM2, ODD_DIMS):
        q, k, v = test_sparse_attention.draw(spec, len(lengths), 60, rng)
        lists = [test_sparse_attention.random_list(60, length, rng) for length in lengths]
        test_sparse_attention.check(spec, HOST, machine.target, q, k, v, lists)


@pytest.mark.parametrize("pilot", ["per query", "bytes per query", "group-block-32"])
def test_shadow_prefill(pilot: str, pilot_machine: Machine) -> None:
    pilots = {"per query": test_prefill.PLAIN, "bytes per query": test_prefill.BYTES}
    spec = test_prefill.shadow_spec(SMOLLM2, {**pilots, **test_prefill.SHARING}[pilot])
    for layer in (test_prefill.SPARSE_LAYER, test_prefill.MIXED_LAYER):
        test_prefill.check(spec, pilot_machine.target, layer, [0, 9, 35], [20, 0, 77])


def test_keys_kept_in_pages(pilot_machine: Machine) -> None:
    for geometry in (SMOLLM2, HALF_ODD_DIMS):
        spec = decode_spec(geometry, PilotSpec(hadamard_rotation=True))
        for buckets in ([test_kept_keys.KEPT] * 3, test_kept_keys.in_turn(SMOLLM2, 0)):
            heads = buckets[: geometry.num_kv_heads]
            test_kept_keys.check(spec, pilot_machine.target, 37, heads)


def test_sparse_decode(pilot_machine: Machine) -> None:
    spec = decode_spec(SMOLLM2)
    test_sparse_paged_decode.check(spec, pilot_machine.target, MIXED_DECODE_LAYER, [0, 3, 90, 16])


@pytest.mark.parametrize("quantization", ["q0f32", "q4f32_1"])
def test_linear_layers(quantization: str, machine: Machine) -> None:
    specs = {
        "q0f32": test_matmul.FLOAT_SPECS[1:3],
        "q4f32_1": test_matmul.QUANTIZED_SPECS[1:3],
    }
    for spec in specs[quantization]:
        layer = test_matmul._layer(spec, machine.target, cpu_features(machine.target))
        for num_tokens in (0, 1, 3, 17, 33):
            x = test_matmul._tokens(spec, num_tokens)
            test_matmul._assert_close(layer, x, layer(x))
        x = test_matmul._tokens(spec, 1)
        test_matmul._assert_close(layer, x, layer(x, decode=True))


def test_rotary_embedding(machine: Machine) -> None:
    test_rotary.test_kernel_equals_twin(9, 3, 64, "float32", machine.target)
    test_rotary.test_kernel_equals_twin(7, 1, 80, "float32", machine.target)


def test_the_newest_cpu_runs_what_is_compiled_for_phones(any_arm64: Machine) -> None:
    spec = test_prefill.shadow_spec(SMOLLM2, test_prefill.SHARING["group-block-32"])
    test_prefill.check(spec, any_arm64.target, test_prefill.MIXED_LAYER, [35], [77])
    test_dense_paged_decode.check(SMOLLM2, any_arm64.target, [3, 65])
