"""No data race and no access out of bounds in any launch, says Oclgrind's interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import open_queue

ROOT = Path(__file__).parents[3]

pytestmark = [pytest.mark.opencl, pytest.mark.slow]


def run(what: str) -> subprocess.CompletedProcess[str]:
    open_queue("oclgrind")
    return subprocess.run(
        [sys.executable, "-m", "tests.tir_kernels.adreno.run_under_oclgrind", what],
        cwd=ROOT,
        env={**os.environ, "OCLGRIND_DATA_RACES": "1", "OCLGRIND_UNINITIALIZED": "0"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )


def test_a_race_would_be_reported() -> None:
    assert "data race" in run("race").stderr


def test_every_slot() -> None:
    finished = run("kernels")
    assert finished.stdout.strip().endswith("done"), finished.stderr
    for complaint in ("data race", "Invalid", "divergence"):
        assert complaint not in finished.stderr, finished.stderr
