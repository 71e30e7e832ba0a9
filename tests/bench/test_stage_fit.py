"""A cost model from stage times: exact where the times follow one, sensible where they don't."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from shadowattn_tvm.bench.stage_fit import fit_costs
from shadowattn_tvm.bench.stage_times import ListTime

HEADS, BLOCK, HEAD_DIM = 3, 16, 64


def times(
    pilot: tuple[float, float], attend: tuple[float, float, float], contexts: tuple[int, ...]
) -> list[ListTime]:
    """Lists whose stages take exactly the nanoseconds of the coefficients."""
    found = []
    for keys, part, queries, stride in product(contexts, (0.1, 0.5), (BLOCK, 5), (1, 4)):
        kept, voters = int(part * keys), -(-queries // stride)
        pilot_ns = HEADS * (pilot[0] + pilot[1] * voters * keys)
        attend_ns = attend[0] + attend[1] * keys + attend[2] * HEADS * queries * kept
        times_ms = (pilot_ns * 1e-6, attend_ns * 1e-6)
        found.append(ListTime(0, 0, HEADS, queries, voters, keys, kept, *times_ms))
    return found


def test_times_that_follow_a_model_give_it_back() -> None:
    fitted = fit_costs(
        times((2000.0, 0.5), (700.0, 0.25, 3.0), (512, 2048)), query_block=BLOCK, head_dim=HEAD_DIM
    )
    pilot, select, attend = fitted.model.pilot, fitted.model.select, fitted.model.attend
    assert (pilot.covers, pilot.queries, pilot.keys, pilot.head_dim) == ("list", BLOCK, 2048, 64)
    assert pilot.fixed_ms == pytest.approx(2000e-6)
    assert pilot.launches[0].ms == pytest.approx((2000 + 0.5 * BLOCK * 2048) * 1e-6)
    assert select.ns_per_list == pytest.approx(700.0)
    assert select.ns_per_list_and_key == pytest.approx(0.25)
    assert attend.ns_per_query_and_kept_key == pytest.approx(3.0)
    assert fitted.pilot_error == pytest.approx(0.0, abs=1e-9)
    assert fitted.attend_error == pytest.approx(0.0, abs=1e-9)
    predicted = pilot.launch_ms(HEADS, queries=5, keys=512, head_dim=HEAD_DIM)
    assert predicted == pytest.approx(HEADS * (2000 + 0.5 * 5 * 512) * 1e-6)


def test_no_cost_is_negative() -> None:
    # A line through these pilots has a negative beginning, one through 0 fits almost as well.
    fitted = fit_costs(
        times((-50.0, 0.5), (-100.0, 0.25, 3.0), (512, 2048)), query_block=BLOCK, head_dim=HEAD_DIM
    )
    assert fitted.model.pilot.fixed_ms == 0.0
    assert fitted.model.select.ns_per_list == 0.0
    assert 0.0 < fitted.pilot_error < 0.05
    assert 0.0 < fitted.attend_error < 0.05


def test_one_context_and_one_ratio_still_predict_what_was_measured() -> None:
    every = times((2000.0, 0.5), (700.0, 0.25, 3.0), (512,))
    time = next(time for time in every if time.kept == 256)
    fitted = fit_costs([time] * 4, query_block=BLOCK, head_dim=HEAD_DIM)
    model = fitted.model
    pilot_ms = model.pilot.launch_ms(HEADS, queries=BLOCK, keys=512, head_dim=HEAD_DIM)
    rest_ms = model.select.ms(lists=1, keys=512) + HEADS * model.attend.ms(
        queries=BLOCK, kept_keys=256, head_dim=HEAD_DIM
    )
    assert pilot_ms == pytest.approx(time.pilot_ms)
    assert rest_ms == pytest.approx(time.attend_ms)


def test_errors_are_those_of_the_list_in_the_middle() -> None:
    exact = times((2000.0, 0.5), (700.0, 0.25, 3.0), (512, 2048))
    rng = np.random.default_rng(1)
    noisy = [
        ListTime(
            **{
                **vars(time),
                "pilot_ms": time.pilot_ms * float(rng.uniform(0.9, 1.1)),
                "attend_ms": time.attend_ms * float(rng.uniform(0.9, 1.1)),
            }
        )
        for time in exact * 20
    ]
    fitted = fit_costs(noisy, query_block=BLOCK, head_dim=HEAD_DIM)
    assert 0.02 < fitted.pilot_error < 0.08
    assert fitted.model.attend.ns_per_query_and_kept_key == pytest.approx(3.0, rel=0.1)
