"""Who votes: the choice against all choices there are, the fraction that was asked for."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest

from shadowattn_tvm.calibrate import (
    CalibrationSettings,
    calibrate,
    chosen_by_cost,
    fisher_ratios,
)
from shadowattn_tvm.calibrate.voters import cheapest
from shadowattn_tvm.errors import ConfigError
from shadowattn_tvm.plan import Pilot, Plan, Sharing
from shadowattn_tvm.weights import ModelDirectory

from .test_methods import CORPUS
from .tiny_model import tiny_config, write_tiny_model

WORK = np.array([1.0, 0.5, 0.25])


@pytest.mark.parametrize("fraction", [0.25, 0.3, 0.45, 0.6, 0.99, 1.0])
def test_the_choice_is_the_best_of_its_work(fraction: float) -> None:
    rng = np.random.default_rng(round(100 * fraction))
    costs = np.cumsum(rng.uniform(0, 1, (3, 6)) ** 3, axis=0)  # fewer voters cost more
    chosen = cheapest(costs, WORK, fraction)
    units = np.arange(6)
    work = WORK[chosen].mean()
    assert work <= fraction
    for other in product(range(3), repeat=6):
        choice = np.array(other)
        if WORK[choice].mean() <= work:
            assert costs[choice, units].sum() >= costs[chosen, units].sum() - 1e-12


def test_who_loses_nothing_does_not_vote_where_all_may() -> None:
    costs = np.array([[1.0, 1.0], [1.0, 2.0], [0.9, 3.0]])
    assert cheapest(costs, WORK, 1.0).tolist() == [2, 0]
    assert cheapest(costs[:, :0], WORK, 0.5).tolist() == []


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> ModelDirectory:
    return write_tiny_model(tmp_path_factory.mktemp("tiny-model"), tiny_config())


def make(directory: ModelDirectory, fraction: float, **changes: object) -> Plan:
    settings = {
        "ratio": 0.4,
        "k_min": 4,
        "pilot": Pilot(score_bits=9),
        "sharing": Sharing(query_block=16),
        "num_windows": 2,
        "window_tokens": 96,
        "voting_fraction": fraction,
    } | changes
    return calibrate(
        directory,
        CORPUS,
        "fisher",
        fisher_ratios,
        CalibrationSettings(**settings),
        choose_strides=chosen_by_cost,
    )


def strides(plan: Plan) -> np.ndarray:
    return np.array([[head.query_stride for head in layer.heads] for layer in plan.layers])


@pytest.mark.parametrize("gqa_group", [False, True])
def test_no_more_vote_than_may(directory: ModelDirectory, gqa_group: bool) -> None:
    plan = make(directory, 0.5, sharing=Sharing(gqa_group=gqa_group, query_block=16))
    assert 0.3 < plan.voting_fraction <= 0.5
    assert set(strides(plan).ravel()) <= {1, 2, 4}
    if gqa_group:
        groups = strides(plan).reshape(plan.model.num_layers, plan.model.num_kv_heads, -1)
        assert (groups == groups[:, :, :1]).all()
    everyone = make(directory, 1.0, sharing=plan.sharing)
    assert (strides(everyone) == 1).all()
    ratios = [[head.keep_ratio for head in layer.heads] for layer in plan.layers]
    assert ratios == [[head.keep_ratio for head in layer.heads] for layer in everyone.layers]


def test_fractions_that_cannot_be_are_refused() -> None:
    for fraction, block, message in (
        (0.0, 16, "above 0"),
        (1.5, 16, "up to 1"),
        (0.2, 16, "at least a fraction of 0.25 .* 16 queries"),
        (0.5, 1, "at least a fraction of 1.0 .* 1 queries"),
    ):
        with pytest.raises(ConfigError, match=message):
            CalibrationSettings(
                ratio=0.1,
                pilot=Pilot(score_bits=9),
                sharing=Sharing(query_block=block),
                voting_fraction=fraction,
            )
