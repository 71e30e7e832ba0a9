"""What is noted is what Python would have found out, and parsing does save the walk."""

from __future__ import annotations

import inspect
import os
from types import FrameType

import pytest

from tests.calibrate.specs import PILOTS, make_spec
from tir_kernels.features import AVX2
from tir_kernels.parsing import remember_evaluated_code
from tir_kernels.shadow.lists import shadow_lists


def evaluated_frame() -> FrameType:
    """A frame like those of expressions in TVMScript."""
    frame = eval(compile("inspect.currentframe()", "<ast>", "eval"))
    assert isinstance(frame, FrameType)
    return frame


def without_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(vars(inspect)["modulesbyfile"], os.path.abspath("<ast>"), raising=False)


def test_evaluated_code_has_no_module_either_way(monkeypatch: pytest.MonkeyPatch) -> None:
    without_table(monkeypatch)
    before = inspect.getframeinfo(evaluated_frame())
    assert inspect.getmodule(evaluated_frame()) is None
    remember_evaluated_code()
    assert inspect.getmodule(evaluated_frame()) is None
    assert inspect.getframeinfo(evaluated_frame()) == before


def test_parsing_meets_no_other_file_without_a_module(monkeypatch: pytest.MonkeyPatch) -> None:
    """Should TVM name its evaluated code otherwise, the saving would be gone without a word."""
    remember_evaluated_code()
    look_up, met = inspect.getmodule, set[str]()

    def observed(frame: object, filename: str | None = None) -> object:
        file = inspect.getabsfile(frame, filename)  # type: ignore[arg-type]
        if file not in vars(inspect)["modulesbyfile"] and "<" in file:
            met.add(os.path.basename(file))
        return look_up(frame, filename)

    monkeypatch.setattr(inspect, "getmodule", observed)
    shadow_lists(make_spec(next(iter(PILOTS.values()))), AVX2)
    assert not met
