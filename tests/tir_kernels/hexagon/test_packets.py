"""What the kernels cost in packets, counted while they are executed: exactly repeatable.

The issue bound: a packet has at most two `vrmpy`, of 32 keys and 4 dimensions each, so the products
of [128, 64] x [2048, 64] take 65,536 packets, whatever else is in them.
"""

from __future__ import annotations

import numpy as np
import pytest
from tvm import tirx
from tvm.script import tirx as T  # noqa: N812 - TVMScript's own spelling

from shadowattn_tvm.device.hexagon import Counters, HexagonEmulator
from tests.hexagon import needs_hexagon, random_launch
from tir_kernels.hexagon.build import build_object
from tir_kernels.hexagon.graph_spec import PilotGraphSpec, SelectionSpec
from tir_kernels.hexagon.pack_keys import pack_keys
from tir_kernels.hexagon.pilot_scores import pilot_scores
from tir_kernels.hexagon.pooled_pilot import pooled_pilot
from tir_kernels.hexagon.score_tile import vrmpy_bound_packets
from tir_kernels.hexagon.select_lists import select_lists
from tir_kernels.spec import PilotSpec

pytestmark = needs_hexagon

ROWS, KEYS, DIM = 128, 2048, 64
BOUND = vrmpy_bound_packets(ROWS, KEYS, DIM)


def naive() -> tirx.PrimFunc:
    """The definition, as LLVM compiles it."""

    @T.prim_func(s_tir=True)
    def scores(var_q: T.handle, var_k: T.handle, var_s: T.handle) -> None:
        T.func_attr({"tirx.noalias": True, "tirx.is_scheduled": True})
        q = T.match_buffer(var_q, (ROWS, DIM), "int8")
        k = T.match_buffer(var_k, (KEYS, DIM), "int8")
        s = T.match_buffer(var_s, (ROWS, KEYS), "int32")
        for i, j in T.grid(ROWS, KEYS):
            s[i, j] = 0
            for d in range(DIM):
                s[i, j] = s[i, j] + T.Cast("int32", q[i, d]) * T.Cast("int32", k[j, d])

    return scores


def run(spec: PilotGraphSpec) -> tuple[Counters, Counters, np.ndarray]:
    """What packing took, what the rest took, and the result."""
    queries, keys, scales = random_launch(spec, np.random.default_rng(0))
    last = pooled_pilot(spec) if spec.pilot.pooled else pilot_scores(spec)
    elf = build_object({"pack": pack_keys(spec), "last": last}, "v66").elf
    lengths = np.array([spec.queries, spec.keys], np.int32)
    packed = np.empty(spec.packed_shape, np.int32)
    outputs = [np.empty((spec.units, spec.heads, spec.queries, spec.keys), np.int32)]
    inputs = [queries, packed, lengths]
    if spec.pilot.pooled:
        outputs = [np.empty((spec.units, spec.lists, spec.keys), np.int32)]
        outputs += [np.empty(spec.scratch_shape, np.int32) for _ in range(2)]
        inputs.insert(2, np.array(scales, np.int32))
    with HexagonEmulator([elf], ["pack", "last"]) as dsp:
        packing = dsp.call("pack", [keys, lengths], [packed])
        return packing, dsp.call("last", inputs, outputs), outputs[0]


def test_scores_take_thirty_times_fewer_packets_than_naive_ones() -> None:
    spec = PilotGraphSpec(1, 1, ROWS, KEYS, DIM, PilotSpec())
    packing, ours, result = run(spec)
    queries, keys, _ = random_launch(spec, np.random.default_rng(0))
    expected = np.empty((ROWS, KEYS), np.int32)
    with HexagonEmulator([build_object({"naive": naive()}, "v66").elf], ["naive"]) as dsp:
        theirs = dsp.call("naive", [queries[0, 0], keys[0]], [expected])
    np.testing.assert_array_equal(result[0, 0], expected)
    packets = packing.packets + ours.packets
    assert 30 * packets <= theirs.packets
    assert packets <= 1.2 * BOUND
    assert ours.hvx_instructions > 2 * BOUND, "every vrmpy is one"


@pytest.mark.parametrize(("dim", "most"), [(64, 1.8), (128, 1.5)])
def test_the_whole_pooled_pilot_stays_near_the_bound(dim: int, most: float) -> None:
    spec = PilotGraphSpec(1, 1, ROWS, KEYS, dim, PilotSpec(score_bits=9, query_block=32))
    packing, ours, _ = run(spec)
    bound = vrmpy_bound_packets(ROWS, KEYS, dim)
    assert packing.packets + ours.packets <= most * bound


def test_lists_of_importances_take_two_packets_a_key() -> None:
    pilot, kept = PilotSpec(score_bits=9, query_block=32), 410
    spec = PilotGraphSpec(1, 1, ROWS, KEYS, DIM, pilot, selection=SelectionSpec(416, 0))
    votes = np.random.default_rng(0).integers(0, 1 << 22, spec.ranked_shape).astype(np.int32)
    lengths, ratio = np.array([ROWS, KEYS], np.int32), np.array([[13107]], np.int32)
    lists, scratch = np.empty(spec.list_words, np.int32), np.empty(KEYS + 128, np.int32)
    with HexagonEmulator(
        [build_object({"select": select_lists(spec)}, "v66").elf], ["select"]
    ) as dsp:
        counters = dsp.call("select", [votes, ratio, lengths], [lists, scratch])
    assert lists[-spec.lists :].tolist() == [kept] * spec.lists
    assert counters.packets <= 2 * KEYS * spec.lists
