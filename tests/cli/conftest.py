"""The command line as a user meets it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from shadowattn_tvm.cli import main
from shadowattn_tvm.plan import Plan, save_plan

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run a command in a wide terminal; (exit code, stdout, stderr)."""
    monkeypatch.setenv("COLUMNS", "160")

    def command(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as exit_info:
            main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return int(exit_info.value.code or 0), captured.out, captured.err

    return command


@pytest.fixture
def plan_file(tiny_plan: Plan, tmp_path: Path) -> Path:
    path = tmp_path / "tiny.json"
    save_plan(tiny_plan, path)
    return path
