"""Kernels parsed the quick way are those that TVM parses its own way, and the saving is there."""

from __future__ import annotations

import inspect
import subprocess
import sys

import pytest
import tvm

from tests.calibrate.specs import PILOTS, make_spec
from tir_kernels.features import AVX2
from tir_kernels.quick_parsing import quicken_parsing
from tir_kernels.shadow.lists import shadow_lists

BOTH_WAYS = """
import tvm
from tests.tir_kernels.test_quick_parsing import kernel
from tir_kernels.quick_parsing import quicken_parsing

slow = kernel()
quicken_parsing()
for _ in range(2):
    tvm.ir.assert_structural_equal(kernel(), slow)
    assert str(kernel()) == str(slow)
"""


def kernel() -> tvm.tirx.PrimFunc:
    """One of many macros, which objects that own buffers call."""
    return shadow_lists(make_spec(next(iter(PILOTS.values()))), AVX2)


def test_kernels_stay_the_same() -> None:
    """In a process of its own: here everything is parsed quickly."""
    child = subprocess.run(
        [sys.executable, "-c", BOTH_WAYS], capture_output=True, text=True, check=False
    )
    assert child.returncode == 0, child.stderr


def test_only_the_kernel_itself_has_its_callers_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Should TVM look for its parser otherwise, the saving would be gone without a word."""
    quicken_parsing()
    quicken_parsing()
    look_up, calls = inspect.getouterframes, []

    def observed(*arguments: object) -> list[inspect.FrameInfo]:
        calls.append(arguments)
        return look_up(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(inspect, "getouterframes", observed)
    kernel()
    assert len(calls) == 2, "the kernel's decorator, run by Python and then by the parser"
