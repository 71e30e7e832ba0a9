"""Top-k: ties, masks, limits, every k, any int32 and any byte."""

from __future__ import annotations

import numpy as np
import pytest
import tvm
from hypothesis import given, settings
from hypothesis import strategies as st

from tir_kernels.reference.top_k import top_k as twin

from ..shadow_harness import every_x86_variant, run_top_k

INT32_MAX = 2**31 - 1
SMALLEST = -INT32_MAX
"""The smallest score; the one below it marks masked positions."""


def check(
    scores: np.ndarray,
    limits: np.ndarray,
    k: int,
    mask: np.ndarray | None,
    variant: str,
    target: tvm.target.Target,
) -> None:
    visible = np.arange(scores.shape[1]) < limits[:, None]
    if mask is not None:
        visible &= mask != 0
    selected = run_top_k(variant, target, scores, limits, k, mask)
    for row, got in enumerate(selected):
        np.testing.assert_array_equal(got, twin(scores[row], visible[row], k))


def scores_of(kind: str, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    return {
        "spread": rng.integers(-(2**20), 2**20, shape),
        "few values": rng.integers(-2, 3, shape),
        "all equal": np.full(shape, 7),
        "extremes": rng.choice([SMALLEST, SMALLEST + 1, -1, 0, INT32_MAX - 1, INT32_MAX], shape),
        "ascending": np.broadcast_to(np.arange(shape[1]), shape),
        "outlier": np.where(rng.random(shape) < 0.01, 2**21, rng.integers(-50, 50, shape)),
    }[kind].astype(np.int32)


@every_x86_variant
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(
    "kind", ["spread", "few values", "all equal", "extremes", "ascending", "outlier"]
)
def test_selection_equals_the_twin(
    kind: str, masked: bool, variant: str, host_target: tvm.target.Target
) -> None:
    rng = np.random.default_rng(5)
    rows = 5
    for positions in (1, 2, 15, 31, 32, 33, 200, 1025):
        for k in {0, 1, 2, positions // 5, positions - 1, positions, positions + 9}:
            scores = scores_of(kind, (rows, positions), rng)
            limits = rng.integers(0, positions + 1, rows)
            limits[:3] = positions, 0, positions + 5
            mask = rng.integers(0, 3, (rows, positions)) if masked else None
            check(scores, limits, k, mask, variant, host_target)


@every_x86_variant
def test_fully_masked_rows_select_nothing(variant: str, host_target: tvm.target.Target) -> None:
    scores = np.full((3, 40), 9, np.int32)
    mask = np.zeros((3, 40))
    mask[1, 39] = 255
    selected = run_top_k(variant, host_target, scores, np.full(3, 40), 7, mask)
    assert [list(row) for row in selected] == [[], [39], []]


@every_x86_variant
def test_ties_go_to_the_lower_index(variant: str, host_target: tvm.target.Target) -> None:
    scores = np.array([[5, 9, 5, 5, 1, 5, 9, 5]], np.int32)
    (selected,) = run_top_k(variant, host_target, scores, np.array([8]), 4)
    assert selected.tolist() == [0, 1, 2, 6]


def bytes_of(kind: str, shape: tuple[int, int], rng: np.random.Generator) -> np.ndarray:
    return {
        "spread": rng.normal(0, 30, shape).clip(-127, 127),
        "any": rng.integers(-127, 128, shape),
        "few values": rng.integers(-2, 3, shape),
        "all equal": np.full(shape, 7),
        "all least": np.full(shape, -127),
        "all most": np.full(shape, 127),
        "saturated": rng.choice([-127, 127], shape),
        "nearly all most": np.where(rng.random(shape) < 0.01, rng.integers(-127, 127, shape), 127),
        "ascending": np.broadcast_to(np.arange(shape[1]) % 255 - 127, shape),
    }[kind].astype(np.int8)


@every_x86_variant
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(
    "kind",
    [
        "spread",
        "any",
        "few values",
        "all equal",
        "all least",
        "all most",
        "saturated",
        "nearly all most",
        "ascending",
    ],
)
def test_selection_of_bytes_equals_the_twin(
    kind: str, masked: bool, variant: str, host_target: tvm.target.Target
) -> None:
    rng = np.random.default_rng(6)
    rows = 4
    # 4,097 bytes are more vectors of 16 than a byte counts
    for positions in (1, 2, 15, 16, 17, 63, 64, 65, 127, 200, 1025, 4097):
        for k in {0, 1, 2, positions // 5, positions - 1, positions, positions + 9}:
            scores = bytes_of(kind, (rows, positions), rng)
            limits = rng.integers(0, positions + 1, rows)
            limits[:3] = positions, 0, positions + 5
            mask = rng.integers(0, 3, (rows, positions)) if masked else None
            check(scores, limits, k, mask, variant, host_target)


@every_x86_variant
def test_fully_masked_bytes_select_nothing(variant: str, host_target: tvm.target.Target) -> None:
    scores = np.full((3, 90), -127, np.int8)
    mask = np.zeros((3, 90))
    mask[1, 89] = 255
    selected = run_top_k(variant, host_target, scores, np.full(3, 90), 7, mask)
    assert [list(row) for row in selected] == [[], [89], []]


@every_x86_variant
def test_every_threshold_of_bytes(variant: str, host_target: tvm.target.Target) -> None:
    """One score of each value: the k-th largest is each of them once, and twice with ties."""
    rng = np.random.default_rng(7)
    every = np.arange(-127, 128, dtype=np.int8)
    for scores in (rng.permutation(every), rng.permutation(np.repeat(every, 2))):
        for k in range(1, len(scores)):
            check(scores[None], np.array([len(scores)]), k, None, variant, host_target)


@every_x86_variant
@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_any_bytes_limits_masks_and_k(
    variant: str, host_target: tvm.target.Target, data: st.DataObject
) -> None:
    positions = data.draw(st.integers(1, 150))
    values = data.draw(
        st.sampled_from([st.integers(-127, 127), st.integers(-2, 2), st.sampled_from([-127, 127])])
    )
    scores = data.draw(st.lists(values, min_size=positions, max_size=positions))
    mask = data.draw(st.lists(st.integers(0, 1), min_size=positions, max_size=positions))
    check(
        np.array([scores], np.int8),
        np.array([data.draw(st.integers(0, positions))]),
        data.draw(st.integers(0, positions + 3)),
        np.array([mask]) if data.draw(st.booleans()) else None,
        variant,
        host_target,
    )


@every_x86_variant
@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_any_scores_limits_masks_and_k(
    variant: str, host_target: tvm.target.Target, data: st.DataObject
) -> None:
    positions = data.draw(st.integers(1, 70))
    values = data.draw(
        st.sampled_from([st.integers(SMALLEST, INT32_MAX), st.integers(-3, 3), st.integers(0, 300)])
    )
    scores = data.draw(st.lists(values, min_size=positions, max_size=positions))
    mask = data.draw(st.lists(st.integers(0, 1), min_size=positions, max_size=positions))
    limit = data.draw(st.integers(0, positions))
    k = data.draw(st.integers(0, positions + 3))
    check(
        np.array([scores], np.int32),
        np.array([limit]),
        k,
        np.array([mask]) if data.draw(st.booleans()) else None,
        variant,
        host_target,
    )
