"""`shadowattn doctor`, as a user meets it."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest

from shadowattn_tvm.doctor import Report, examine
from tests.cli.conftest import Run
from tests.doctor.test_examination import all_work


def test_the_command(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shadowattn_tvm.cli.doctor.examine", partial(examine, run=all_work))
    code, out, err = run("doctor", "--json", tmp_path / "report.json")
    assert (code, err.strip()) == (0, "")
    assert "emulated Hexagon" in out
    assert Report.model_validate(json.loads((tmp_path / "report.json").read_text())).findings
    code, out, err = run("doctor", "--rpc", "127.0.0.1:1")
    assert code == 2
    assert "required, but not in order: RPC device (missing)" in err
    assert "python -m tvm.exec.rpc_server" in out
    code, out, err = run("doctor", "--rpc", "nowhere")
    assert (code, out.strip()) == (2, "")
    assert "expected HOST:PORT" in err
