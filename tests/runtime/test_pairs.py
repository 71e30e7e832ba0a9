"""The kept fraction: the integer formula against counting every pair one by one."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shadowattn_tvm.runtime.pairs import PairCounter, PairCounts
from tir_kernels.constants import RATIO_ONE
from tir_kernels.spec import keep_count

ratios = st.lists(
    st.lists(st.integers(0, RATIO_ONE), min_size=2, max_size=2), min_size=1, max_size=3
)


@settings(deadline=None, max_examples=60)
@given(ratios, st.integers(1, 40), st.lists(st.integers(1, 50), min_size=1, max_size=4))
def test_counts_are_those_of_enumerating_all_pairs(keep, k_min, chunks):
    counter = PairCounter(keep, k_min)
    total, position = PairCounts(), 0
    kept_pairs = past_pairs = chunk_pairs = 0
    for size in chunks:
        total += counter.chunk(position, size)
        for query in range(size):
            for ratio in (r for layer in keep for r in layer):
                chunk_pairs += query + 1
                past_pairs += position
                kept_pairs += position if size == 1 else keep_count(position, ratio, k_min)
        position += size
    assert total == PairCounts(kept_pairs, past_pairs, chunk_pairs)
    assert total.past_fraction == (kept_pairs / past_pairs if past_pairs else 1.0)
    assert total.total_fraction == (kept_pairs + chunk_pairs) / (past_pairs + chunk_pairs)


def test_a_dense_library_keeps_everything():
    counts = PairCounter(None, 1).chunk(100, 28)
    assert counts.past_fraction == counts.total_fraction == 1.0
    assert counts.past_total + counts.chunk_total == 128 * 129 // 2 - 100 * 101 // 2


def test_a_fifth_of_a_long_past():
    fifth = RATIO_ONE // 5
    counts = PairCounter([[fifth] * 9] * 30, k_min=16).chunk(2000, 100)
    assert counts.past_fraction == pytest.approx(0.2, abs=1e-3)
    assert counts.total_fraction > counts.past_fraction


def test_nothing_prefilled_leaves_nothing_out():
    assert PairCounts().past_fraction == PairCounts().total_fraction == 1.0


def test_differences_undo_sums():
    a, b = PairCounts(1, 2, 3), PairCounts(10, 20, 30)
    assert a + b - a == b
