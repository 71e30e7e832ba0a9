"""`shadowattn compile` for a Hexagon: a bank, or one message."""

from __future__ import annotations

from pathlib import Path

import pytest

from shadowattn_tvm.graph import load_bank
from shadowattn_tvm.plan import Plan
from shadowattn_tvm.weights import ModelDirectory
from tests.cli.conftest import Run
from tests.hexagon import needs_hexagon

pytestmark = needs_hexagon


def test_a_bank_is_made_and_replaced(
    run: Run, tiny_directory: ModelDirectory, tiny_plan: Plan, plan_file: Path, tmp_path: Path
) -> None:
    bank = tmp_path / "bank"
    command = ("compile", tiny_directory.path, "--plan", plan_file, "--device", "hexagon-v75")
    for _ in range(2):
        code, out, err = run(*command, "-o", bank)
        assert (code, out) == (0, f"{bank}\n")
        assert "3 graphs of " in err
        assert len(load_bank(bank, tiny_plan).objects) == 3
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "letter.txt").write_text("mine")
    code, _, err = run(*command, "-o", tmp_path / "taken")
    assert (code, "one with files in it" in err) == (2, True)
    assert [path.name for path in (tmp_path / "taken").iterdir()] == ["letter.txt"]


def test_a_bank_may_select(
    run: Run, tiny_directory: ModelDirectory, tiny_plan: Plan, plan_file: Path, tmp_path: Path
) -> None:
    """A quarter of 512 keys, a list for each of the rows of the tiny plan's heads."""
    bank = tmp_path / "bank"
    command = ("compile", tiny_directory.path, "--plan", plan_file, "--device", "hexagon-v75")
    code, _, err = run(*command, "--select-on-npu", "-o", bank)
    assert code == 0, err
    graphs = load_bank(bank, tiny_plan).manifest.graphs
    assert {(g.keys, g.list_capacity, g.result_dtype) for g in graphs} == {(512, 128, "int32")}
    rows = [g.units * g.heads * g.queries for g in graphs]
    assert [g.result_bytes for g in graphs] == [4 * r * (128 + 1) for r in rows]
    header = (bank / "shadowattn_pilot.h").read_text()
    assert "[units][heads][queries][list_capacity] int32" in header
    assert "lists of keys" in (bank / "shadowattn_pilot.idl").read_text()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--device", "hexagon-v75", "--plan", "off"), "expected a plan"),
        (("--device", "hexagon-v75", "--tuning-logs", "off"), "--tuning-logs can't be given"),
        (("--device", "hexagon-v75", "--plan", "smollm2-135m-r20"), "another model"),
        (("--device", "hexagon-v1"), "hexagon-v75"),
        (("--device", "host", "--select-on-npu"), "--select-on-npu can't be given"),
    ],
)
def test_mistakes_are_said(
    options: tuple[str, ...],
    message: str,
    run: Run,
    tiny_directory: ModelDirectory,
    plan_file: Path,
    tmp_path: Path,
) -> None:
    plan = () if "--plan" in options else ("--plan", plan_file)
    code, _, err = run("compile", tiny_directory.path, *plan, *options, "-o", tmp_path / "bank")
    assert code == 2
    assert message in err
    assert "Traceback" not in err
    assert not (tmp_path / "bank").exists()


def test_a_missing_linker_is_named(
    run: Run,
    tiny_directory: ModelDirectory,
    plan_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PATH", "")
    command = ("compile", tiny_directory.path, "--plan", plan_file, "--device", "hexagon-v66")
    code, _, err = run(*command, "-o", tmp_path / "bank")
    assert code == 2
    assert "apt-get install lld-19" in err


def test_other_commands_say_that_an_npu_runs_no_models(
    run: Run, tiny_directory: ModelDirectory, plan_file: Path, tmp_path: Path
) -> None:
    command = ("tune", tiny_directory.path, "--plan", plan_file, "--device", "hexagon-v75")
    code, _, err = run(*command, "-o", tmp_path / "logs")
    assert code == 2
    assert "pilot graphs and nothing else" in err
