"""`shadowattn plan`: what it prints, draws and writes, and what it refuses."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from shadowattn_tvm.plan import Plan, Sharing, load_plan, load_ratios, save_plan, unit_launches
from shadowattn_tvm.plan.summary import PlanSummary, ProfileSummary
from tests.cli.conftest import Run
from tests.plan.tiny_plan import K_MIN, cost_model, shared_lists, stage_costs

PROFILE = b"1.0 1.00 \n0.25 0.125 \n0.5 3e-1 \n"


@pytest.fixture
def profile_file(tmp_path: Path) -> Path:
    path = tmp_path / "profile.txt"
    path.write_bytes(PROFILE)
    return path


def test_show_prints_the_plan(run: Run, plan_file: Path, tiny_plan: Plan) -> None:
    code, out, err = run("plan", "show", plan_file)
    assert (code, err) == (0, "")
    for text in (
        "tiny.json",
        "3 layers, 6 query and 2 KV heads of 16",
        "asked for 50.00%",
        "over 256 tokens in chunks of 16",
        "dense layers: 0",
        "INT8 queries and keys",
        "method uniform",
        "1 windows of 256 tokens from text",
    ):
        assert text in out
    rows = [line.split() for line in out.splitlines() if line.strip()[:1].isdigit()]
    assert [row[0] for row in rows] == ["0", "1", "2"]
    assert rows[0][1:3] == ["dense", "█" * 6]
    assert rows[1][1:5] == ["25.0%", "25.0%", "25.0%", "▂" * 6]
    scales = [head.q_scale for head in tiny_plan.layers[1].heads]
    assert rows[1][5:8] == [f"{min(scales):.4f}", "-", f"{max(scales):.4f}"]


def test_show_counts_pairs_as_the_runtime_does(run: Run, plan_file: Path, tmp_path: Path) -> None:
    assert run("plan", "show", plan_file, "--json", tmp_path / "out.json")[0] == 0
    summary = PlanSummary.model_validate_json((tmp_path / "out.json").read_text())
    # A quarter of each past, at least K_MIN of it, in two layers of three; the first is dense.
    past = sum(16 * start for start in range(0, 256, 16))
    kept = sum(16 * min(start, max(K_MIN, start // 4)) for start in range(0, 256, 16))
    chunks = 16 * (16 * 17 // 2)
    budget = summary.budget
    assert budget.past_fraction == pytest.approx((past + 2 * kept) / (3 * past))
    assert budget.total_fraction == pytest.approx(
        (past + 2 * kept + 3 * chunks) / (3 * (past + chunks))
    )


def test_show_takes_the_name_of_a_shipped_plan(run: Run) -> None:
    code, out, _ = run("plan", "show", "smollm2-135m-r20")
    assert code == 0
    assert "30 layers, 9 query and 3 KV heads of 64" in out


def test_show_prints_the_order_of_heads_and_their_costs(
    run: Run, tiny_plan: Plan, tmp_path: Path
) -> None:
    plan = shared_lists(tiny_plan, Sharing(gqa_group=True, query_block=8))
    order = ((0, 1), (1, 0), ((0, 1),))
    changed = {"head_order": order, "stage_costs": stage_costs(cost_model())}
    save_plan(plan.model_copy(update=changed), tmp_path / "p.json")
    code, out, _ = run("plan", "show", tmp_path / "p.json", "--json", tmp_path / "out.json")
    assert code == 0
    assert "of groups, planned for 1,000 older tokens" in out
    assert "attention 50.00 ns a query and kept key" in " ".join(out.split())
    rows = [line.split() for line in out.splitlines() if line.strip()[:1].isdigit()]
    assert [row[-2:] for row in rows[-2:]] == [["1", "0"], [rows[-1][-2], "0+1"]]
    summary = PlanSummary.model_validate_json((tmp_path / "out.json").read_text())
    assert summary.head_order == order


def test_show_draws(run: Run, plan_file: Path, tmp_path: Path) -> None:
    code, out, _ = run("plan", "show", plan_file, "--plot", tmp_path / "map.svg")
    assert code == 0
    assert out
    assert "tiny.json" in (tmp_path / "map.svg").read_text()  # the title, as a comment


def test_a_profile_goes_in_and_out_unchanged(run: Run, profile_file: Path, tmp_path: Path) -> None:
    ratios, exported = tmp_path / "ratios.json", tmp_path / "exported.txt"
    assert run("plan", "import-profile", profile_file, "-o", ratios)[:2] == (0, f"{ratios}\n")
    assert run("plan", "export-profile", ratios, "-o", exported)[:2] == (0, f"{exported}\n")
    assert exported.read_bytes() == PROFILE
    profile = load_ratios(ratios)
    assert profile.keep_ratios == ((1.0, 1.0), (0.25, 0.125), (0.5, 0.3))
    assert profile.dense_layers == (0,)
    assert profile.source.name == "profile.txt"


def test_ratios_are_shown_and_drawn(run: Run, profile_file: Path, tmp_path: Path) -> None:
    ratios = tmp_path / "ratios.json"
    run("plan", "import-profile", profile_file, "-o", ratios)
    code, out, _ = run(
        "plan", "show", ratios, "--json", tmp_path / "out.json", "--plot", tmp_path / "map.png"
    )
    assert code == 0
    assert "3 layers of 2 query heads, mean 52.92%, 2 heads keep everything" in out
    assert "profile.txt" in out
    summary = ProfileSummary.model_validate_json((tmp_path / "out.json").read_text())
    assert summary.layers[2].keep_ratio.min == 0.3
    assert (tmp_path / "map.png").stat().st_size > 0


def test_a_plan_is_exported_as_it_runs(run: Run, plan_file: Path, tmp_path: Path) -> None:
    document = json.loads(plan_file.read_text())
    document["layers"][0]["heads"][0]["keep_ratio"] = 0.5  # dense all the same
    plan_file.write_text(json.dumps(document))
    assert run("plan", "export-profile", plan_file, "-o", tmp_path / "p.txt")[0] == 0
    dense, sparse = b"1.0 " * 6 + b"\n", b"0.25 " * 6 + b"\n"
    assert (tmp_path / "p.txt").read_bytes() == dense + 2 * sparse


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["show", "none.json"], "no plan or ratios at none.json"),
        (["show", "gpt-9000"], "smollm2-135m-r20"),
        (["show", "bad.json"], "expected JSON"),
        (["show", "other.json"], "expected a ratios file"),
        (["show", "smollm2-135m-r20", "--plot", "map.pdf"], ".png or .svg"),
        (["import-profile", "none.txt", "-o", "r.json"], "can't read none.txt"),
        (["import-profile", "bad.json", "-o", "r.json"], "line 1, column 1"),
        (["export-profile", "none.json", "-o", "p.txt"], "no plan or ratios"),
        (["import-profile", "bad.json"], "--output"),
        (["draw"], "draw"),
    ],
)
def test_mistakes_exit_with_two_and_write_nothing(
    arguments: list[str],
    message: str,
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bad.json").write_text("{")
    Path("other.json").write_text('{"document": "shopping list"}')
    before = sorted(tmp_path.iterdir())
    code, out, err = run("plan", *arguments)
    assert code == 2
    assert message in err
    assert "Traceback" not in err
    assert out == ""
    assert sorted(tmp_path.iterdir()) == before


def test_decode_is_switched_and_nothing_else(
    run: Run, plan_file: Path, tiny_plan: Plan, tmp_path: Path
) -> None:
    sparse, dense = tmp_path / "sparse.json", tmp_path / "dense.json"
    assert run("plan", "decode", "sparse", plan_file, "-o", sparse) == (0, f"{sparse}\n", "")
    assert load_plan(sparse) == tiny_plan.model_copy(update={"decode": "sparse"})
    assert "sparse, over an INT8 shadow of K" in run("plan", "show", sparse)[1]
    assert run("plan", "decode", "dense", sparse, "-o", dense)[0] == 0
    assert dense.read_bytes() == plan_file.read_bytes()


def test_decode_needs_a_plan(run: Run, profile_file: Path, tmp_path: Path) -> None:
    ratios = tmp_path / "ratios.json"
    assert run("plan", "import-profile", profile_file, "-o", ratios)[0] == 0
    code, _, err = run("plan", "decode", "sparse", ratios, "-o", tmp_path / "out.json")
    assert code == 2
    assert "expected a plan, got keep ratios" in err
    assert run("plan", "decode", "fast", ratios, "-o", tmp_path / "out.json")[0] == 2
    assert not (tmp_path / "out.json").exists()


def test_order_launches_heads_together_for_a_phone(
    run: Run, tiny_plan: Plan, tmp_path: Path
) -> None:
    ratios = (0.02, 0.1, 0.3, 0.5, 0.2, 0.7)
    plan = shared_lists(tiny_plan, Sharing(query_block=8), ratios)
    measured = plan.model_copy(update={"stage_costs": stage_costs(cost_model())})
    save_plan(measured, tmp_path / "p.json")
    code, out, err = run(
        *("plan", "order", "snapdragon-8-gen-3", tmp_path / "p.json"),
        *("--context", 2048, "--chunk-tokens", 128, "-o", tmp_path / "phone.json"),
    )
    assert (code, out) == (0, f"{tmp_path / 'phone.json'}\n")
    assert "computed, not measured" in " ".join(err.split())
    ordered = load_plan(tmp_path / "phone.json")
    assert ordered.head_order is not None
    launches = unit_launches(ordered.head_order)
    assert max(map(len, launches[1])) > 1
    assert ordered.model_copy(update={"head_order": None}) == plan


def test_order_refuses_what_takes_no_turns(
    run: Run, plan_file: Path, profile_file: Path, tmp_path: Path
) -> None:
    ratios = tmp_path / "ratios.json"
    run("plan", "import-profile", profile_file, "-o", ratios)
    for source, message in ((plan_file, "share lists"), (ratios, "got keep ratios")):
        code, out, err = run(
            *("plan", "order", "snapdragon-8-gen-3", source, "-o", tmp_path / "out.json")
        )
        assert (code, out, message in " ".join(err.split())) == (2, "", True), err
    assert not (tmp_path / "out.json").exists()
