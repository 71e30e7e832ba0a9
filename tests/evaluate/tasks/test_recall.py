"""The recall task: figures over heads by hand, and on the tiny model."""

from __future__ import annotations

import numpy as np
import pytest

from shadowattn_tvm.errors import ConfigError
from shadowattn_tvm.evaluate.context import EvaluationContext
from shadowattn_tvm.evaluate.tasks.recall import run_recall, summarize
from shadowattn_tvm.weights import ModelDirectory
from tests.evaluate.conftest import MakeContext
from tests.plan.tiny_plan import make_plan


def test_heads_count_alike_however_many_lists_they_have() -> None:
    recall_sum = np.array([[0.0, 0.0], [9.0, 0.5]])
    num_lists = np.array([[0, 0], [10, 1]])
    result = summarize(recall_sum, num_lists, 3)
    assert result.mean == pytest.approx((0.9 + 0.5) / 2)
    assert result.worst_decile == pytest.approx(0.5)
    assert result.by_head == ((None, None), (0.9, 0.5))
    assert (result.lists, result.windows) == (11, 3)


def test_the_worst_tenth_of_twenty_heads_are_two() -> None:
    recalls = np.linspace(0.5, 0.975, 20).reshape(2, 10)
    result = summarize(recalls, np.ones((2, 10), np.int64), 1)
    assert result.worst_decile == pytest.approx((recalls[0, 0] + recalls[0, 1]) / 2)


def test_on_the_tiny_model(tiny_context: EvaluationContext) -> None:
    result = run_recall(tiny_context)
    assert result.windows == 4  # at least `min_windows`
    assert result.by_head[0] == (None,) * 6
    assert all(value is not None for layer in result.by_head[1:] for value in layer)
    assert 0.5 < result.worst_decile <= result.mean < 1.0
    # 4 windows, 2 sparse layers, 6 heads, 15 chunks with more than k_min past keys, 4 rows
    assert result.lists == 4 * 2 * 6 * 15 * 4


def test_a_plan_that_keeps_everything_has_no_recall(
    make_tiny_context: MakeContext, tiny_directory: ModelDirectory
) -> None:
    context = make_tiny_context(make_plan(tiny_directory, keep_ratio=1.0))
    with pytest.raises(ConfigError, match="expected sparse heads"):
        run_recall(context)
