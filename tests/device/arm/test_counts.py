"""Instructions the kernels execute, counted: exact, repeatable, and the same on every machine.

Emulation says nothing about time. Instructions do say what sparsity saves, and whether the inner
loops are made of the instructions they were written for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from shadowattn_tvm.device.arm import InstructionCounts
from tests.tir_kernels import in_threads
from tests.tir_kernels.decode_harness import decode_spec
from tests.tir_kernels.dense_harness import SMOLLM2, indptr, paged_batch, run_paged_prefill
from tests.tir_kernels.shadow_harness import filled, tensor
from tir_kernels.attention.dense import dense_paged_prefill
from tir_kernels.constants import RATIO_ONE
from tir_kernels.decode.sparse_paged_decode import sparse_paged_decode
from tir_kernels.features import NEON, NEON_DOTPROD, NEON_I8MM, CpuFeatures
from tir_kernels.pilot.int8_dot import int8_dot_method
from tir_kernels.pilot.key_block import quantize_keys
from tir_kernels.pilot.quantize import bucket_scales
from tir_kernels.pilot.scores import pilot_scores
from tir_kernels.shadow.prefill import shadow_paged_prefill
from tir_kernels.spec import PilotSpec

from .machines import MATRIX, OLD, PHONE, Library, Machine

pytestmark = [pytest.mark.arm, pytest.mark.usefixtures("emulator_only")]

Counts = dict[str, InstructionCounts]
MachineOf = Callable[[str], Machine]

QUERIES, KEYS = 32, 512
POOLED = PilotSpec(score_bits=8, share_group=True, query_block=32)

PRODUCTS = QUERIES * KEYS * SMOLLM2.num_q_heads * SMOLLM2.head_dim
"""Of queries and keys, over all heads."""

LANES, DOT_PRODUCTS, MATRIX_PRODUCTS = 4, 16, 32
"""Products an `fmla`, an `sdot` and an `smmla` make."""


def counted(library: Library, name: str) -> InstructionCounts:
    """Of one call, over a past of `KEYS` in pages; not the first, which looks up what it calls."""
    rng = np.random.default_rng(0)
    q = rng.standard_normal((QUERIES, SMOLLM2.num_q_heads, SMOLLM2.head_dim), dtype=np.float32)
    batch = paged_batch(SMOLLM2, [KEYS], rng)
    emulator = library.machine.emulator
    arguments = (library[name], SMOLLM2, q, indptr([QUERIES]), batch)
    library.machine.kernels.call("runtime.config_threadpool", 1, 1)
    run_paged_prefill(*arguments, causal=False, layer=0)
    before = emulator.instruction_counts()
    run_paged_prefill(*arguments, causal=False, layer=0)
    return emulator.instruction_counts() - before


@pytest.fixture(scope="module")
def counts(machine_of: MachineOf) -> Counts:
    """Dense, and with a fifth of the past kept: pooled lists, and a list per query."""
    machine = machine_of(PHONE)
    library = machine.build(
        {
            "dense": dense_paged_prefill(SMOLLM2, NEON_DOTPROD),
            "pooled": shadow_paged_prefill(in_threads.sparse(POOLED), NEON_DOTPROD),
            "per query": shadow_paged_prefill(in_threads.sparse(PilotSpec()), NEON_DOTPROD),
        }
    )
    found = {name: counted(library, name) for name in ("dense", "pooled", "per query")}
    assert found["pooled"] == counted(library, "pooled"), "counts are exact"
    return found


def test_dense_attention_is_made_of_multiply_adds(counts: Counts) -> None:
    least = 2 * PRODUCTS // LANES  # with keys, then with values
    assert least <= counts["dense"].multiply_add < 1.25 * least
    assert counts["dense"].multiply_add > 0.4 * counts["dense"].total
    assert counts["dense"].int8_dot == 0


@pytest.mark.parametrize("kind", ["pooled", "per query"])
def test_the_pilot_is_made_of_dot_products(kind: str, counts: Counts) -> None:
    # Whole tiles of 16 keys and 4 queries: exactly as many as there are products.
    assert counts[kind].int8_dot == PRODUCTS // DOT_PRODUCTS


def test_a_fifth_of_the_past_takes_a_fifth_of_the_multiply_adds(counts: Counts) -> None:
    for kind in ("pooled", "per query"):
        ratio = counts[kind].multiply_add / counts["dense"].multiply_add
        assert 0.15 < ratio < 0.35, kind


def test_with_pilot_and_selection_sparse_takes_fewer_instructions(
    counts: Counts,
) -> None:
    assert counts["pooled"].total < 0.65 * counts["dense"].total
    assert counts["per query"].total < 0.85 * counts["dense"].total


def test_the_less_is_kept_the_fewer_instructions(counts: Counts, machine_of: MachineOf) -> None:
    spec = in_threads.sparse(POOLED)
    heads = tuple(replace(head, keep_ratio_q16=RATIO_ONE // 20) for head in spec.heads[0])
    library = machine_of(PHONE).build(
        {"a twentieth": shadow_paged_prefill(replace(spec, heads=(heads,)), NEON_DOTPROD)}
    )
    twentieth = counted(library, "a twentieth")
    assert twentieth.int8_dot == counts["pooled"].int8_dot, "the pilot sees everything"
    assert twentieth.multiply_add < 0.5 * counts["pooled"].multiply_add


def counts_of_stages(machine: Machine, features: CpuFeatures) -> Counts:
    """Of one KV head's keys, packed, of one head's scores, and of the whole slot; likewise."""
    dot, dim, rng = int8_dot_method(features), SMOLLM2.head_dim, np.random.default_rng(0)
    keys = tensor(rng.standard_normal((KEYS, dim), dtype=np.float32))
    q = rng.standard_normal((QUERIES, SMOLLM2.num_q_heads, dim), dtype=np.float32)
    scales = tensor(np.array(bucket_scales(0.02, 0.5), np.float32))
    packed = filled((KEYS // dot.lanes, dim // dot.group, dot.lanes * dot.group), "int8", 77)
    scores, chosen = filled((QUERIES, KEYS), "int32", -77), filled((1,), "float32", np.nan)
    table = tensor(np.arange(KEYS, dtype=np.int32))
    library = machine.build(
        {
            "packed": quantize_keys(SMOLLM2, features),
            "scores": pilot_scores(SMOLLM2, features),
            "pooled": shadow_paged_prefill(in_threads.sparse(POOLED), features),
            "per query": shadow_paged_prefill(in_threads.sparse(PilotSpec()), features),
        }
    )
    arguments = {
        "packed": (keys, table, scales, packed, chosen, 0),
        "scores": (tensor(q), scales, packed, scores, chosen, 0),
    }
    counts = {}
    for name, values in arguments.items():
        library[name](*values)
        before = machine.emulator.instruction_counts()
        library[name](*values)
        counts[name] = machine.emulator.instruction_counts() - before
    return counts | {name: counted(library, name) for name in ("pooled", "per query")}


@pytest.fixture(scope="module")
def dotprod_counts(machine_of: MachineOf) -> Counts:
    return counts_of_stages(machine_of(MATRIX), NEON_DOTPROD)


@pytest.fixture(scope="module")
def i8mm_counts(machine_of: MachineOf) -> Counts:
    return counts_of_stages(machine_of(MATRIX), NEON_I8MM)


def test_matrix_products_halve_the_pilot(dotprod_counts: Counts, i8mm_counts: Counts) -> None:
    a_head = PRODUCTS // SMOLLM2.num_q_heads
    assert dotprod_counts["scores"].int8_dot == a_head // DOT_PRODUCTS
    assert i8mm_counts["scores"].int8_matrix == a_head // MATRIX_PRODUCTS
    assert i8mm_counts["scores"].int8_dot == dotprod_counts["scores"].int8_matrix == 0
    # turning squares into rows is in the count, and so is quantizing the queries
    assert i8mm_counts["scores"].total < 0.55 * dotprod_counts["scores"].total


def test_packing_keys_for_matrix_products_costs_no_more(
    dotprod_counts: Counts, i8mm_counts: Counts
) -> None:
    assert i8mm_counts["packed"].total <= dotprod_counts["packed"].total


@pytest.mark.parametrize("kind", ["pooled", "per query"])
def test_matrix_products_shorten_the_whole_slot(
    kind: str, dotprod_counts: Counts, i8mm_counts: Counts
) -> None:
    dotprod, i8mm = dotprod_counts[kind], i8mm_counts[kind]
    assert i8mm.int8_matrix == PRODUCTS // MATRIX_PRODUCTS
    assert i8mm.int8_dot == 0
    assert i8mm.multiply_add == dotprod.multiply_add, "the lists are the same"
    assert i8mm.total < 0.92 * dotprod.total


def test_assembly_has_the_instructions_meant(machine_of: MachineOf) -> None:
    spec = in_threads.sparse(POOLED).attention
    phone, old = machine_of(PHONE), machine_of(OLD)
    dot = phone.build({"pilot": pilot_scores(spec, NEON_DOTPROD)}).disassembled()
    products = machine_of(MATRIX).build({"pilot": pilot_scores(spec, NEON_I8MM)}).disassembled()
    plain = old.build({"pilot": pilot_scores(spec, NEON)}).disassembled()
    assert "sdot\tv" in dot
    assert "sdot" not in plain
    assert "smmla\tv" in products
    assert "sdot" not in products
    assert "smmla" not in dot
    decode = sparse_paged_decode(decode_spec(SMOLLM2), NEON_I8MM)
    rows = machine_of(MATRIX).build({"decode": decode}).disassembled()
    assert "sdot\tv" in rows, "of one query and keys in rows: smmla takes more instructions"
    assert "smmla" not in rows
    assert "mla\tv" in plain
    assert "fmla\tv" in phone.build({"d": dense_paged_prefill(spec, NEON_DOTPROD)}).disassembled()
