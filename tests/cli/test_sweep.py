"""Options of `eval --sweep` that can't be used are refused before anything is measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from shadowattn_tvm.cli.sweep import sweep
from shadowattn_tvm.errors import ConfigError, PlanError
from shadowattn_tvm.plan import Plan
from shadowattn_tvm.weights import ModelDirectory
from tests.evaluate.conftest import SETTINGS


def _sweep(directory: ModelDirectory, plan: Plan, **changes: object) -> None:
    options = {
        "kinds": ("method",),
        "corpus": ("pydoc",),
        "calibration_corpus": None,
        "calibration_windows": 1,
        "against": (),
        "report_folder": Path("report"),
        "command": "shadowattn eval",
        "progress": lambda what, done, total: None,
    }
    sweep(directory, plan, SETTINGS, **options | changes)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"report_folder": None}, ConfigError, "give a folder by --report"),
        ({"kinds": ("speed",)}, ConfigError, "unknown sweep 'speed': expected one of ratio"),
        ({"against": ("paper.json",)}, ConfigError, r"expected NAME=PLAN.json, got 'paper.json'"),
        ({"against": ("paper=none.json",)}, PlanError, r"no plan at none.json"),
        ({"corpus": ("no/such/text",)}, ConfigError, "no/such/text"),
    ],
)
def test_unusable_options_are_refused(
    tiny_directory: ModelDirectory,
    tiny_plan: Plan,
    changes: dict[str, object],
    error: type[Exception],
    message: str,
) -> None:
    with pytest.raises(error, match=message):
        _sweep(tiny_directory, tiny_plan, **changes)
