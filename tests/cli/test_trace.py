"""`shadowattn trace --simulate`: no model, a comparison, and nothing that looks measured."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from shadowattn_tvm.plan import Plan, Sharing, save_plan
from tests.cli.conftest import Run
from tests.plan.tiny_plan import shared_lists

PHONE = "snapdragon-8-gen-3"


@pytest.fixture
def pooled_file(tiny_plan: Plan, tmp_path: Path) -> Path:
    plan = shared_lists(tiny_plan, Sharing(query_block=8), (0.1, 0.2, 0.3, 0.9, 0.25, 0.5))
    save_plan(plan, tmp_path / "pooled.json")
    return tmp_path / "pooled.json"


def test_orders_are_compared_and_called_a_simulation(
    run: Run, pooled_file: Path, tmp_path: Path
) -> None:
    trace, picture = tmp_path / "trace.json", tmp_path / "timeline.svg"
    code, out, err = run(
        *("trace", "--simulate", PHONE, "--plan", pooled_file, "--context", 2048),
        *("--chunk", 128, "-o", trace, "--plot", picture),
    )
    assert (code, out) == (0, f"{trace}\n")
    title = f"SIMULATED from the cost table of {PHONE}: tiny, layer 1, 128 queries"
    assert title in err
    assert "nothing ran" in err
    rows = [line.split() for line in err.splitlines()]
    times = [float(row[-2]) for row in rows if row[:1] in (["in"], ["most"], ["planned"])]
    in_turn, most_kept, planned = times
    assert planned < most_kept <= in_turn
    document = json.loads(trace.read_text())
    assert document["otherData"]["kind"] == "simulated"
    assert document["otherData"]["description"].startswith(title)
    assert title in picture.read_text()


def test_three_machines_are_three_lanes(run: Run, pooled_file: Path, tmp_path: Path) -> None:
    trace, picture = tmp_path / "trace.json", tmp_path / "timeline.svg"
    code, _, _ = run(
        *("trace", "--simulate", f"{PHONE}-adreno", "--plan", pooled_file),
        *("--chunk", 128, "-o", trace, "--plot", picture),
    )
    assert code == 0
    events = json.loads(trace.read_text())["traceEvents"]
    names = [event["args"]["name"] for event in events if event["name"] == "thread_name"]
    assert names == [f"{machine} (simulated)" for machine in ("NPU", "CPU", "GPU")] * 2
    assert "<!-- GPU -->" in picture.read_text()


def test_a_plan_without_shared_lists_can_be_simulated(
    run: Run, plan_file: Path, tmp_path: Path
) -> None:
    command = ("trace", "--simulate", PHONE, "--plan", plan_file, "-o", tmp_path / "t.json")
    code, _, err = run(*command, "--layer", 2)
    assert (code, "layer 2, 16 queries, 2,048 older tokens" in err) == (0, True)


def test_mistakes(run: Run, pooled_file: Path, tmp_path: Path) -> None:
    common = ("trace", "--plan", pooled_file, "-o", tmp_path / "t.json")
    phone = (*common, "--simulate", PHONE)
    cases = [
        (common, "expected a model directory to trace, or --simulate"),
        ((*common, "--simulate", "toaster"), f"one of {PHONE}"),
        ((*common, "--simulate", tmp_path / "no.toml"), "can't read"),
        ((*common, "models/m", "--layer", 1), "--layer can't be given without --simulate"),
        ((*phone, "models/m"), "model can't be given with --simulate"),
        ((*phone, "--tokens", 100), "--tokens can't be given with --simulate"),
        ((*phone, "--layer", 0), "every head of layer 0"),
        ((*phone, "--layer", 9), "expected 0 to 2, got 9"),
        ((*phone, "--context", 8), "keeps all of 8 tokens in every head"),
        ((*phone, "--plot", "t.pdf"), ".png or .svg"),
        (("trace", "--simulate", PHONE, "--plan", "off", "-o", "t.json"), "got 'off'"),
    ]
    for arguments, message in cases:
        code, out, err = run(*arguments)
        assert (code, out, message in err.replace("\n", " ")) == (2, "", True), err
        assert "Traceback" not in err
    assert not (tmp_path / "t.json").exists()
