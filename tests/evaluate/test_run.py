"""An evaluation from the command line to the result file, on the tiny model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from shadowattn_tvm.cli import main
from shadowattn_tvm.errors import ConfigError, OutputError
from shadowattn_tvm.evaluate import load_record, save_record
from shadowattn_tvm.evaluate.results import EvaluationRecord
from shadowattn_tvm.plan import Plan, plan_hash, save_plan
from shadowattn_tvm.weights import ModelDirectory

SIZES = ["--context", "256", "--prefill-chunk", "16", "--windows", "4", "--min-windows", "4"]


def run(*arguments: object) -> int:
    with pytest.raises(SystemExit) as exit_info:
        main(["eval", *map(str, arguments)])
    return int(exit_info.value.code or 0)


@pytest.fixture(scope="module")
def plan_file(tiny_plan: Plan, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("plan") / "plan.json"
    save_plan(tiny_plan, path)
    return path


@pytest.fixture(scope="module")
def result_file(
    tiny_directory: ModelDirectory,
    plan_file: Path,
    tiny_texts: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    path = tmp_path_factory.mktemp("results") / "result.json"
    texts = [f"--corpus={tiny_texts / f'text-{i}.txt'}" for i in range(4)]
    tasks = "--tasks=ppl, recall,agreement"
    code = run(tiny_directory.path, "--plan", plan_file, tasks, *texts, *SIZES, "--json", path)
    assert code == 0
    return path


def test_the_file_has_the_promised_fields(
    result_file: Path, tiny_plan: Plan, tiny_directory: ModelDirectory
) -> None:
    document = json.loads(result_file.read_text())
    assert 0.25 < document["budget"]["past_fraction"] < document["budget"]["total_fraction"] < 1.0
    results = document["results"]
    assert set(results["recall"]) >= {"mean", "worst_decile"}
    ppl = results["ppl"]
    assert set(ppl) >= {"dense", "shadow", "relative_percent", "ci95_percent", "windows"}
    fields = {"document", "start_token", "tokens", "nll_dense", "nll_shadow"}
    assert all(set(window) >= fields for window in ppl["windows"])
    assert results["agreement"]["greedy_match"] <= 1.0
    assert results["passkey"] is None
    assert document["plan"]["hash"] == plan_hash(tiny_plan)
    assert document["model"]["weight_hash"] == tiny_directory.weight_hash
    assert [d["name"] for d in document["corpus"]["documents"]] == [
        f"text-{i}.txt" for i in range(4)
    ]
    assert document["command"][0] == "shadowattn"


def test_the_table_shows_every_figure(
    result_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from rich.console import Console

    from shadowattn_tvm.evaluate.table import record_table

    record = load_record(result_file)
    Console(width=150).print(record_table(record))
    shown = capsys.readouterr().out
    assert f"{record.budget.past_fraction:.2%}" in shown
    assert record.results.ppl is not None
    assert f"{record.results.ppl.relative_percent:+.3f} %" in shown
    assert record.results.recall is not None
    assert f"{record.results.recall.worst_decile:.4f}" in shown


def test_a_record_survives_its_file(result_file: Path, tmp_path: Path) -> None:
    record = load_record(result_file)
    save_record(record, tmp_path / "again.json")
    assert (tmp_path / "again.json").read_text() == result_file.read_text()
    assert isinstance(record, EvaluationRecord)


def test_a_damaged_result_file_is_named(result_file: Path, tmp_path: Path) -> None:
    document = json.loads(result_file.read_text())
    document["budget"]["past_fraction"] = 2.0
    document["surprise"] = 1
    (tmp_path / "bad.json").write_text(json.dumps(document))
    with pytest.raises(ConfigError, match=r"budget\.past_fraction") as info:
        load_record(tmp_path / "bad.json")
    assert "surprise" in str(info.value)


def test_a_place_that_can_not_be_written_leaves_nothing(result_file: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError):
        save_record(load_record(result_file), tmp_path / "file" / "result.json")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--tasks", "recall,chess"], "got chess"),
        (["--tasks", ","], "got none"),
        (["--plan", "off"], "got 'off'"),
        (["--corpus", "nowhere"], "no corpus 'nowhere'"),
        (["--min-windows", "20"], "at least 20 windows"),
        (["--context", "100000"], "context_window_size"),
        (["--tasks", "passkey"], "at least 1024 tokens"),
    ],
)
def test_mistakes_exit_with_two(
    arguments: list[str],
    message: str,
    tiny_directory: ModelDirectory,
    plan_file: Path,
    tiny_texts: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    defaults = {"--plan": str(plan_file), "--corpus": str(tiny_texts)}
    given = [item for pair in defaults.items() if pair[0] not in arguments for item in pair]
    assert run(tiny_directory.path, *given, *SIZES, *arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert "Traceback" not in error


def test_libraries_compiled_before_are_used(
    tiny_directory: ModelDirectory,
    tiny_library: Path,
    tiny_shadow_library: Path,
    plan_file: Path,
    tiny_texts: Path,
    result_file: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    path = tmp_path / "result.json"
    texts = [f"--corpus={tiny_texts / f'text-{i}.txt'}" for i in range(4)]
    given = ["--model-lib", tiny_shadow_library, "--model-lib", tiny_library]
    monkeypatch.setattr("shadowattn_tvm.evaluate.run.compile_library", None)
    arguments = ["--plan", plan_file, "--tasks=ppl", *texts, *SIZES, "--json", path, *given]
    assert run(tiny_directory.path, *arguments) == 0
    before, after = (load_record(file).results.ppl for file in (result_file, path))
    assert before is not None
    assert after is not None
    assert (after.dense, after.shadow) == (before.dense, before.shadow)


def test_libraries_of_another_kind_are_refused(
    tiny_directory: ModelDirectory,
    tiny_library: Path,
    tiny_shadow_library: Path,
    plan_file: Path,
    tiny_plan: Plan,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    arguments = [tiny_directory.path, "--plan", plan_file, "--tasks=ppl", *SIZES]
    assert run(*arguments, "--model-lib", tiny_library, "--model-lib", tiny_library) == 2
    assert "expected at most one dense library" in capsys.readouterr().err
    other = tmp_path / "other.json"
    save_plan(tiny_plan.model_copy(update={"k_min": tiny_plan.k_min + 1}), other)
    arguments[2] = other
    assert run(*arguments, "--model-lib", tiny_shadow_library) == 2
    assert "was compiled with the plan" in capsys.readouterr().err
    assert run(*arguments, "--model-lib", tiny_library, "--sweep", "ratio") == 2
    assert "can't be given with a sweep" in capsys.readouterr().err
