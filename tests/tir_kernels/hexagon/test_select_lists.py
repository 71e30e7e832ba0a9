"""Top-k on HVX, executed: the NumPy twin's lists.

What can break it: lengths that are multiples of nothing, k of 0, 1 and all, more than a list has
room for, rows of ties, ties over several tiles, the largest and the smallest numbers there are,
what stands beyond the last key, rows without queries.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from shadowattn_tvm.device.hexagon import HexagonEmulator
from tests.hexagon import needs_hexagon
from tir_kernels.constants import RATIO_ONE
from tir_kernels.hexagon.build import build_object
from tir_kernels.hexagon.graph_spec import PilotGraphSpec, SelectionSpec
from tir_kernels.hexagon.select_lists import NO_KEY, select_lists
from tir_kernels.reference.top_k import top_k
from tir_kernels.spec import PilotSpec, SpecError, keep_count

pytestmark = needs_hexagon

K_MIN = 3

BLOCKS = PilotSpec(score_bits=9, query_block=8)
GROUP = PilotSpec(score_bits=8, share_group=True, query_block=8)

SPECS = {
    "importances": PilotGraphSpec(2, 1, 16, 512, 64, BLOCKS, selection=SelectionSpec(512, K_MIN)),
    "importances of groups": PilotGraphSpec(
        2, 3, 16, 384, 80, GROUP, selection=SelectionSpec(96, K_MIN)
    ),
    "int32": PilotGraphSpec(2, 1, 4, 384, 64, PilotSpec(), selection=SelectionSpec(384, K_MIN)),
    "int16": PilotGraphSpec(
        1, 1, 4, 384, 64, PilotSpec(score_bits=9), selection=SelectionSpec(384, K_MIN)
    ),
    "int8": PilotGraphSpec(
        1, 2, 4, 384, 64, PilotSpec(score_bits=8), selection=SelectionSpec(64, K_MIN)
    ),
}


def bounds(spec: PilotGraphSpec) -> tuple[int, int]:
    """The smallest and the largest number that a row may hold."""
    if spec.pilot.pooled:
        return 0, (spec.pilot.query_block * spec.heads) << 19
    if spec.pilot.requantize:
        return -spec.pilot.score_max, spec.pilot.score_max
    return -(127**2) * spec.head_dim, 127**2 * spec.head_dim


Draw = Callable[[PilotGraphSpec, np.random.Generator], np.ndarray]


def spread(spec: PilotGraphSpec, rng: np.random.Generator) -> np.ndarray:
    low, high = bounds(spec)
    return rng.integers(low, high + 1, spec.ranked_shape)


def few_values(spec: PilotGraphSpec, rng: np.random.Generator) -> np.ndarray:
    return rng.integers(-1, 2, spec.ranked_shape).clip(bounds(spec)[0])


def alike(spec: PilotGraphSpec, rng: np.random.Generator) -> np.ndarray:
    rows = rng.integers(*bounds(spec), spec.ranked_shape[:-1])
    return np.broadcast_to(rows[..., None], spec.ranked_shape)


def extremes(spec: PilotGraphSpec, rng: np.random.Generator) -> np.ndarray:
    return rng.choice(bounds(spec), spec.ranked_shape)


@pytest.mark.parametrize("spec", SPECS.values(), ids=SPECS)
def test_lists_are_the_twins(spec: PilotGraphSpec) -> None:
    assert spec.selection is not None
    capacity, rng = spec.selection.capacity, np.random.default_rng(spec.keys)
    owners = spec.units if spec.pilot.pooled else spec.all_heads
    block = spec.pilot.query_block if spec.pilot.pooled else 1
    got = np.empty(spec.list_words, np.int32)
    scratch = np.empty(spec.keys + 128, np.int32)
    with HexagonEmulator(
        [build_object({"select": select_lists(spec)}, "v66").elf], ["select"]
    ) as dsp:
        for draw in (spread, few_values, alike, extremes):
            for num_keys in (1, 31, 128, 203, spec.keys):
                ranked = draw(spec, rng).astype(spec.ranked_dtype)
                ranked[..., num_keys:] = np.iinfo(ranked.dtype).min
                for ratio in (0, 1, 13107, RATIO_ONE):
                    ratios = np.full((spec.all_heads, 1), ratio, np.int32)
                    num_rows = int(rng.integers(1, spec.queries + 1))
                    lengths = np.array([num_rows, num_keys], np.int32)
                    dsp.call("select", [ranked, ratios, lengths], [got, scratch])
                    k = min(capacity, keep_count(num_keys, ratio, K_MIN))
                    lists = got[: -spec.all_lists].reshape(owners, -1, capacity)
                    counts = got[-spec.all_lists :].reshape(owners, -1)
                    filled = -(-num_rows // block)
                    assert (counts[:, :filled] == k).all()
                    assert (counts[:, filled:] == 0).all()
                    assert (lists[:, :filled, k:] == NO_KEY).all()
                    assert (lists[:, filled:] == NO_KEY).all()
                    rows = ranked.reshape(owners, -1, spec.keys)[:, :filled, :num_keys]
                    for owner, row in np.ndindex(owners, filled):
                        want = top_k(rows[owner, row], np.ones(num_keys, np.bool_), k)
                        assert lists[owner, row, :k].tolist() == want.tolist()


def test_each_head_keeps_what_its_ratio_says() -> None:
    spec = PilotGraphSpec(2, 2, 8, 256, 64, GROUP, selection=SelectionSpec(256, 0))
    ranked = np.random.default_rng(1).integers(0, 9, spec.ranked_shape).astype(np.int32)
    ratios = np.array([[0], [RATIO_ONE], [RATIO_ONE // 8], [0]], np.int32)
    got, scratch = np.empty(spec.list_words, np.int32), np.empty(spec.keys + 128, np.int32)
    with HexagonEmulator(
        [build_object({"select": select_lists(spec)}, "v66").elf], ["select"]
    ) as dsp:
        dsp.call("select", [ranked, ratios, np.array([8, 200], np.int32)], [got, scratch])
    assert got[-2:].tolist() == [0, 25]  # none at all; the unit's first head says how many
    assert (got[:256] == NO_KEY).all()


def test_impossible_lists_are_refused() -> None:
    with pytest.raises(SpecError, match="multiple of 32"):
        SelectionSpec(33, 1)
    with pytest.raises(SpecError, match="k_min"):
        SelectionSpec(32, -1)
    with pytest.raises(SpecError, match="at most 128 keys"):
        PilotGraphSpec(1, 1, 8, 128, 64, BLOCKS, selection=SelectionSpec(256, 1))
