"""The sample of the past: the middles of equal stretches, never the first keys, never too many."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tir_kernels.constants import REST_SAMPLES, REST_STRIDE
from tir_kernels.rest_sample import rest_positions


def test_samples_by_hand() -> None:
    assert list(rest_positions(0)) == list(rest_positions(4)) == []
    assert list(rest_positions(5)) == list(rest_positions(12)) == [4]
    assert list(rest_positions(29)) == [4, 12, 20, 28]
    assert rest_positions(4096) == range(4, 4096, 8)
    assert rest_positions(8192) == range(8, 8192, 16)


@given(st.integers(0, 200_000))
def test_samples_are_spread_and_few(num_past: int) -> None:
    positions = rest_positions(num_past)
    assert len(positions) <= REST_SAMPLES
    assert len(positions) >= min(REST_SAMPLES // 2, (num_past - REST_STRIDE // 2) // REST_STRIDE)
    if len(positions) > 0:
        assert positions[0] >= REST_STRIDE // 2
        assert positions[0] <= positions.step // 2
        assert num_past - positions[-1] <= positions.step // 2 + positions.step
