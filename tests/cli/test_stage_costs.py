"""`shadowattn calibrate --stage-costs`: a plan goes in, with costs and an order it comes out."""

from __future__ import annotations

from pathlib import Path

import pytest

from shadowattn_tvm.pipeline import Shape, planned_launches
from shadowattn_tvm.plan import Plan, Sharing, head_order, load_plan, save_plan
from shadowattn_tvm.weights import ModelDirectory
from tests.cli.conftest import Run
from tests.plan.tiny_plan import shared_lists


@pytest.fixture
def pooled_file(tiny_plan: Plan, tmp_path: Path) -> Path:
    ratios = (0.1, 0.2, 0.3, 0.9, 0.25, 0.5)
    save_plan(shared_lists(tiny_plan, Sharing(query_block=8), ratios), tmp_path / "pooled.json")
    return tmp_path / "pooled.json"


def test_the_plan_gets_costs_and_an_order(
    run: Run, tiny_directory: ModelDirectory, pooled_file: Path, tmp_path: Path
) -> None:
    code, out, err = run(
        *("calibrate", tiny_directory.path, "--stage-costs", "--plan", pooled_file),
        *("--context", 200, "--context", 100, "--chunk-tokens", 20, "--rounds", 2),
        *("-o", tmp_path / "out.json"),
    )
    assert (code, out) == (0, f"{tmp_path / 'out.json'}\n")
    assert "most kept first" in err
    before, after = load_plan(pooled_file), load_plan(tmp_path / "out.json")
    costs = after.stage_costs
    assert costs is not None
    assert (costs.contexts, costs.planned_context) == ((100, 200), 200)
    assert (costs.chunk_tokens, costs.rounds) == (20, 2)
    assert costs.model.shared_cpu
    assert costs.model.pilot.covers == "list"
    planned = planned_launches(before, costs.model, Shape(queries=20, keys=200))
    assert after.head_order == head_order(planned)
    unchanged = {"head_order": None, "stage_costs": None}
    assert after.model_copy(update=unchanged) == before


def test_mistakes(
    run: Run, tiny_directory: ModelDirectory, plan_file: Path, pooled_file: Path, tmp_path: Path
) -> None:
    common = ("calibrate", tiny_directory.path, "-o", tmp_path / "out.json")
    measure = (*common, "--stage-costs", "--plan", pooled_file)
    cases = [
        ((*common, "--stage-costs"), "expected a plan by --plan"),
        ((*common, "--stage-costs", "--plan", plan_file), "share lists"),
        ((*common, "--stage-costs", "--plan", "off"), "got 'off'"),
        ((*common, "--stage-costs", "--plan", "smollm2-135m-r20-per-query"), "share lists"),
        ((*measure, "--method", "fisher"), "--method can't be given with --stage-costs"),
        ((*measure, "--query-block", "1"), "--query-block can't be given with --stage-costs"),
        ((*measure, "--context", "8"), "keeps all of 8 tokens"),
        ((*common, "--plan", pooled_file), "--plan can't be given without --stage-costs"),
        ((*measure, "--device", "arm64"), "expected the device to run on by --rpc"),
        ((*measure, "--rpc", "nowhere"), "expected HOST:PORT"),
        ((*measure, "--rpc", "127.0.0.1:1"), "can't reach RPC server 127.0.0.1:1"),
        ((*common, "--rpc", "127.0.0.1:1"), "--rpc can't be given without --stage-costs"),
        ((*common, "--rounds", "7"), "--rounds can't be given without --stage-costs"),
    ]
    for arguments, message in cases:
        code, out, err = run(*arguments)
        assert (code, out, message in err.replace("\n", " ")) == (2, "", True), err
        assert "Traceback" not in err
    assert not (tmp_path / "out.json").exists()
