"""Sampling: against definitions written out in full, and against frequencies with fixed seeds."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from shadowattn_tvm.errors import ConfigError, LibraryError
from shadowattn_tvm.runtime.sampling import Sampler, SamplingParams, nucleus

LOGITS = np.log(np.array([0.5, 0.25, 0.125, 0.125], dtype=np.float32))


def draw(params: SamplingParams, count: int, logits: np.ndarray = LOGITS) -> list[int]:
    sampler = Sampler(params)
    return [sampler.sample(logits) for _ in range(count)]


def test_greedy_takes_the_likeliest_and_the_lower_id_of_equals():
    greedy = SamplingParams(temperature=0.0)
    assert Sampler(greedy).sample(np.array([1, 3, 3, 2], np.float32)) == 1


def test_draws_follow_the_distribution():
    counts = np.bincount(draw(SamplingParams(seed=7), 20_000), minlength=4)
    # Chi-squared with 3 degrees of freedom exceeds 16.3 in one of a thousand seeds.
    expected = np.array([0.5, 0.25, 0.125, 0.125]) * 20_000
    assert ((counts - expected) ** 2 / expected).sum() < 16.3


def test_temperature_sharpens_and_flattens():
    def share_of_best(temperature: float) -> float:
        return draw(SamplingParams(temperature=temperature, seed=1), 4_000).count(0) / 4_000

    # p ** (1 / t), normalized
    assert share_of_best(0.5) == pytest.approx(0.25 / (0.25 + 0.0625 + 2 * 0.015625), abs=0.03)
    assert share_of_best(100.0) == pytest.approx(0.25, abs=0.03)
    assert share_of_best(1e-6) == 1.0


def test_tiny_temperatures_do_not_overflow():
    with np.errstate(invalid="raise"):
        assert draw(SamplingParams(temperature=1e-300, seed=1), 5) == [0] * 5


def test_top_p_draws_only_from_the_nucleus():
    assert set(draw(SamplingParams(top_p=0.75, seed=3), 2_000)) == {0, 1}
    assert set(draw(SamplingParams(top_p=0.76, seed=3), 2_000)) == {0, 1, 2}
    assert set(draw(SamplingParams(top_p=0.0, seed=3), 200)) == {0}


@settings(deadline=None, max_examples=200)
@given(
    hnp.arrays(np.float64, st.integers(1, 40), elements=st.floats(0, 1)),
    st.floats(0, 1),
)
def test_the_nucleus_is_the_smallest_set_by_definition(weights, top_p):
    weights = weights + 1e-9
    probabilities = weights / weights.sum()
    order = sorted(range(len(weights)), key=lambda i: (-probabilities[i], i))
    expected, mass = [], 0.0
    for token in order:
        if expected and mass >= top_p:
            break
        expected.append(token)
        mass += probabilities[token]
    got = list(nucleus(probabilities, top_p))
    # Summed in the same order, so equal to the last bit but for what the floor left out.
    assert got == expected or math.isclose(mass, top_p, rel_tol=1e-12)
    assert got == order[: len(got)]


def test_the_same_seed_draws_the_same_and_another_differs():
    first, again, other = (draw(SamplingParams(seed=s), 50) for s in (5, 5, 6))
    assert first == again
    assert first != other


def test_without_a_seed_draws_differ():
    flat = np.zeros(1000, np.float32)
    assert draw(SamplingParams(), 20, flat) != draw(SamplingParams(), 20, flat)


def test_repetition_penalty_divides_positive_and_multiplies_negative_logits():
    params = SamplingParams(temperature=0.0, repetition_penalty=2.0)
    sampler = Sampler(params)
    logits = np.array([3.0, 2.0, -1.0], np.float32)
    assert [sampler.sample(logits) for _ in range(2)] == [0, 1]
    # 3 / 2 = 1.5 against 2 / 2 = 1
    assert sampler.sample(logits) == 0
    negative = Sampler(params)
    below_zero = np.array([-1.0, -1.5, -4.0], np.float32)
    assert [negative.sample(below_zero) for _ in range(3)] == [0, 1, 0]


def test_presence_is_subtracted_once_and_frequency_each_time():
    logits = np.array([2.0, 1.0], np.float32)
    presence = Sampler(SamplingParams(temperature=0.0, presence_penalty=0.9))
    assert [presence.sample(logits) for _ in range(4)] == [0, 0, 0, 0]
    frequency = Sampler(SamplingParams(temperature=0.0, frequency_penalty=0.4))
    # 2.0, 1.6, 1.2, then 0.8 against 1.0
    assert [frequency.sample(logits) for _ in range(4)] == [0, 0, 0, 1]


@pytest.mark.parametrize("broken", [math.nan, math.inf])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_logits_that_are_not_finite_are_refused(broken, temperature):
    logits = LOGITS.copy()
    logits[2] = broken
    with pytest.raises(LibraryError, match="not finite"):
        Sampler(SamplingParams(temperature=temperature)).sample(logits)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("temperature", -0.1),
        ("temperature", math.nan),
        ("temperature", math.inf),
        ("top_p", -0.1),
        ("top_p", 1.01),
        ("top_p", math.nan),
        ("repetition_penalty", 0.0),
        ("presence_penalty", 2.5),
        ("frequency_penalty", math.nan),
        ("seed", -1),
    ],
)
def test_values_out_of_range_are_refused_by_name(name, value):
    with pytest.raises(ConfigError, match=name):
        SamplingParams(**{name: value})
