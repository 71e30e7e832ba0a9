"""Costs of stages: what a table means between and beyond its entries, and what is no table."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from shadowattn_tvm.config.cost_model import AttendCost, PilotCost, SelectCost

TABLE: dict[str, Any] = {
    "covers": "chunk",
    "queries": 128,
    "keys": 2048,
    "head_dim": 64,
    "launches": [{"heads": 1, "ms": 2.0}, {"heads": 2, "ms": 3.0}, {"heads": 4, "ms": 4.0}],
    "fixed_ms": 1.0,
}


def launch_ms(heads: int, **changes: int) -> float:
    shape = {"queries": 128, "keys": 2048, "head_dim": 64} | changes
    return PilotCost.model_validate(TABLE).launch_ms(heads, **shape)


@pytest.mark.parametrize(
    ("heads", "expected"),
    [(1, 2.0), (2, 3.0), (3, 4.0), (4, 4.0), (5, 6.0), (7, 8.0), (8, 8.0), (9, 10.0)],
)
def test_sizes_that_the_table_lacks(heads: int, expected: float) -> None:
    assert launch_ms(heads) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("heads", "changes", "expected"),
    [
        (1, {"keys": 4096}, 1.0 + 2 * 1.0),
        (4, {"keys": 1024}, 1.0 + 3.0 / 2),
        (2, {"queries": 512}, 1.0 + 4 * 2.0),
        (1, {"head_dim": 128, "keys": 1024}, 2.0),
        (5, {"keys": 4096}, (1.0 + 2 * 3.0) + (1.0 + 2 * 1.0)),
    ],
)
def test_other_shapes_leave_the_fixed_part(
    heads: int, changes: dict[str, int], expected: float
) -> None:
    assert launch_ms(heads, **changes) == pytest.approx(expected)


def test_selection_and_attention() -> None:
    select = SelectCost(ns_per_list=500.0, ns_per_list_and_key=0.5)
    assert select.ms(lists=4, keys=1000) == pytest.approx(4 * (500 + 500) * 1e-6)
    attend = AttendCost(ns_per_query_and_kept_key=10.0, head_dim=64)
    assert attend.ms(queries=128, kept_keys=100, head_dim=64) == pytest.approx(0.128)
    assert attend.ms(queries=128, kept_keys=100, head_dim=128) == pytest.approx(0.256)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"launches": []}, "launches"),
        ({"launches": [{"heads": 2, "ms": 2.0}]}, "expected 1, then more and more heads"),
        ({"launches": [{"heads": 1, "ms": 2.0}] * 2}, r"got \[1, 1\]"),
        (
            {"launches": [{"heads": 1, "ms": 2.0}, {"heads": 2, "ms": 1.9}]},
            "more heads to take no less time",
        ),
        ({"launches": [{"heads": 1, "ms": 0.0}], "fixed_ms": 0.0}, "launches.0.ms"),
        ({"fixed_ms": 2.5}, "expected at most the 2.0 ms of a launch of one head, got 2.5"),
        ({"fixed_ms": -0.1}, "fixed_ms"),
        ({"fixed_ms": float("nan")}, "fixed_ms"),
        ({"keys": 0}, "keys"),
        ({"covers": "layer"}, "covers"),
        ({"per_head": True}, "per_head"),
    ],
)
def test_what_is_no_table(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        PilotCost.model_validate(TABLE | changes)
