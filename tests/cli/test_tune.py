"""`shadowattn tune` and `compile --tuning-logs`, as a user meets them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from shadowattn_tvm.compiler import model_workloads, resolve_target
from shadowattn_tvm.plan import Plan, save_plan
from shadowattn_tvm.weights import ModelDirectory
from tests.calibrate.tiny_model import tiny_config, tiny_parameters, write_tiny_model
from tests.plan.tiny_plan import shared_lists
from tests.tune.databases import some_tiles, write_database

from .conftest import Run


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--kernels", "conv"), "expected some of gemm, list_attention, got 'conv'"),
        (("--kernels", "list_attention"), "needs a plan whose queries share lists"),
        (("--kernels", ""), "got ''"),
        (("--trials", "0"), "--trials"),
        (("--device", "toaster"), "unknown device 'toaster'"),
        (("--plan", "nothing"), "no plan 'nothing'"),
        (("--rpc-tracker", "localhost:9190"), "--rpc-tracker and --rpc-key together"),
        (("--rpc-key", "phone"), "--rpc-tracker and --rpc-key together"),
        (("--rpc-tracker", "localhost", "--rpc-key", "a"), "expected HOST:PORT, got 'localhost'"),
        (("--rpc-tracker", ":9190", "--rpc-key", "a"), "expected HOST:PORT, got ':9190'"),
        (("--rpc-tracker", "h:99999", "--rpc-key", "a"), "expected HOST:PORT, got 'h:99999'"),
        (("--rpc-tracker", "127.0.0.1:1", "--rpc-key", "a"), "can't reach a tracker"),
    ],
)
def test_mistakes_are_named(
    arguments: tuple[str, ...],
    message: str,
    run: Run,
    tiny_directory: ModelDirectory,
    tmp_path: Path,
) -> None:
    pytest.importorskip("cloudpickle", reason="the tune extra is missing")
    code, out, err = run("tune", tiny_directory.path, "-o", tmp_path / "logs", *arguments)
    assert code == 2
    assert out == ""
    assert message in " ".join(err.split())
    assert not (tmp_path / "logs").exists()


def test_a_float16_model_is_refused(run: Run, tmp_path: Path) -> None:
    stored = {name: w.astype(np.float16) for name, w in tiny_parameters(tiny_config()).items()}
    model = tmp_path / "model"
    model.mkdir()
    write_tiny_model(model, tiny_config(), parameters=stored, quantization="q0f16")
    code, _, err = run("tune", model, "-o", tmp_path / "logs")
    assert code == 2
    assert "expected a model in q0f32 or q4f32_1" in " ".join(err.split())
    assert not (tmp_path / "logs").exists()


def test_missing_packages_are_named(
    run: Run, tiny_directory: ModelDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shadowattn_tvm.tune.run.find_spec", lambda name: None)
    code, _, err = run("tune", tiny_directory.path, "-o", tmp_path)
    assert code == 2
    assert "pip install 'shadowattn-tvm[tune]'" in err


@pytest.mark.slow
def test_a_tuned_kernel_is_compiled_in(
    run: Run, tiny_directory: ModelDirectory, tiny_plan: Plan, tmp_path: Path
) -> None:
    pytest.importorskip("cloudpickle", reason="the tune extra is missing")
    plan, logs, report = tmp_path / "plan.json", tmp_path / "logs", tmp_path / "tuning.json"
    save_plan(shared_lists(tiny_plan), plan)
    code, out, err = run(
        *("tune", tiny_directory.path, "--plan", plan, "--kernels", "list_attention"),
        *("--trials", 1, "-o", logs, "--json", report),
    )
    assert code == 0, err
    (folder,) = logs.iterdir()
    assert out.strip() == str(folder)
    assert "list_attention_16_8: 1 of" in err
    assert "the hand-chosen tile stays" in err
    document = json.loads(report.read_text())
    assert document["runner"] == "local"
    assert document["rows"][0]["measured"] == 1
    # what the search found of this model's GEMMs, had it been longer
    workloads = model_workloads(tiny_directory.architecture, "q0f32", None)
    target = resolve_target("host")
    for workload in workloads:
        write_database(logs, workload, target, {some_tiles(workload, target)[1]: [1.0]})
    compile_it = ("compile", tiny_directory.path, "--plan", "off", "-o", tmp_path / "a.so")
    code, _, err = run(*compile_it, "--tuning-logs", logs)
    assert code == 0, err
    assert f"tuned: 4 kernels from {folder}" in err
    code, _, err = run(*compile_it, "--tuning-logs", "off")
    assert code == 0, err
    assert "tuned: no kernels" in err


def test_compile_refuses_logs_that_are_not_there(
    run: Run, tiny_directory: ModelDirectory, tmp_path: Path
) -> None:
    code, _, err = run(
        *("compile", tiny_directory.path, "--plan", "off", "-o", tmp_path / "a.so"),
        *("--tuning-logs", tmp_path / "nowhere"),
    )
    assert code == 2
    assert "--tuning-logs: expected a folder" in err
