"""`bench prefill` and `bench decode` on a tiny model, all contenders in their processes."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType

from shadowattn_tvm.bench import save_bench
from shadowattn_tvm.bench.model import ModelGrid, bench_decode, bench_prefill, prefill_rounds
from shadowattn_tvm.bench.model_contenders import ModelContender, model_contenders
from shadowattn_tvm.bench.model_document import PrefillBench, PrefillRow
from shadowattn_tvm.bench.model_plot import plot_prefill
from shadowattn_tvm.evaluate.budget import prefill_budget
from shadowattn_tvm.evaluate.results import these_versions, this_machine
from shadowattn_tvm.plan import Plan
from shadowattn_tvm.weights import ModelDirectory
from tests.plan.tiny_plan import make_plan
from tests.weights.tiny import Tiny, write_gguf

CHUNK = 16
TOKENS = [int(t) for t in np.random.default_rng(5).integers(0, 256, 80)]
STAND_IN = Path(__file__).parent / "llama_stand_in"


@pytest.fixture(scope="module")
def gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    model = Tiny()
    return write_gguf(path, model, model.weights(), matrix_type=GGMLQuantizationType.Q4_1)


@pytest.fixture
def mild_plan(tiny_directory: ModelDirectory) -> Plan:
    """Random weights make every key matter: keep nearly all."""
    return make_plan(tiny_directory, keep_ratio=0.9)


@pytest.fixture
def grid(
    tiny_directory: ModelDirectory,
    tiny_library: Path,
    mild_plan: Plan,
    gguf: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> ModelGrid:
    """All four contenders; llama.cpp's place is taken by a stand-in."""
    monkeypatch.syspath_prepend(str(STAND_IN))
    monkeypatch.setenv("PYTHONPATH", str(STAND_IN))
    monkeypatch.setenv("STAND_IN_MODEL", str(tiny_directory.path))
    monkeypatch.setenv("STAND_IN_LIBRARY", str(tiny_library))
    contenders, skipped = model_contenders(tiny_directory, mild_plan, gguf=gguf)
    assert skipped == []
    return ModelGrid(
        directory=tiny_directory,
        plan=mild_plan,
        plan_name="mild",
        contenders=contenders,
        threads=1,
        chunk_tokens=CHUNK,
        rounds=2,
    )


@pytest.mark.slow
def test_prefill(grid: ModelGrid, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    (rows,) = bench_prefill(grid, [TOKENS], progress=lambda *at: seen.append(at))
    assert seen == [("80 tokens", 0, 2), ("80 tokens", 1, 2), ("80 tokens", 2, 2)]
    by_name = {row.contender: row for row in rows}
    assert list(by_name) == ["dense", "shadow", "torch", "llama_cpp"]
    for name, row in by_name.items():
        assert (row.prompt_tokens, row.threads, row.rounds) == (80, 1, 2)
        assert row.checked
        assert row.ttft_ms > 0
        assert row.spread_ms is not None
        if name != "dense":
            assert row.agreement is not None
            assert row.agreement.same_token or row.agreement.kl_nats < 0.2
    assert by_name["dense"].agreement is None
    shadow = by_name["shadow"]
    assert shadow.plan == "mild"
    assert shadow.past_fraction == prefill_budget(grid.spec, 80, CHUNK).past_fraction < 1.0
    assert {row.past_fraction for row in rows if row is not shadow} == {1.0}
    assert [row.weights for row in rows] == ["q0f32"] * 3 + ["Q4_1"]
    geometry = grid.directory.architecture
    page_bytes = 2 * geometry.num_key_value_heads * 16 * geometry.head_dim * 4
    assert shadow.kv_cache_bytes == geometry.num_hidden_layers * 5 * page_bytes
    assert shadow.pilot_workspace_bytes is not None
    assert shadow.pilot_workspace_bytes > 0
    assert by_name["dense"].pilot_workspace_bytes is None
    assert by_name["torch"].kv_cache_bytes is None
    # torch is close, not only of the same opinion
    torch_agreement = by_name["torch"].agreement
    assert torch_agreement is not None
    assert torch_agreement.same_token
    assert torch_agreement.kl_nats < 1e-6
    _save_and_plot(grid, rows, tmp_path)


def _save_and_plot(grid: ModelGrid, rows: Sequence[PrefillRow], folder: Path) -> None:
    record = PrefillBench(
        created=datetime(2026, 1, 2, tzinfo=UTC),
        command=("shadowattn", "bench", "prefill"),
        versions=these_versions(),
        machine=this_machine(),
        model="tiny",
        weight_hash=grid.directory.weight_hash,
        text=("pydoc",),
        skipped=(),
        rows=tuple(rows),
    )
    save_bench(record, folder / "bench.json")
    document = json.loads((folder / "bench.json").read_text())
    assert PrefillBench.model_validate(document) == record
    longer = [row.model_copy(update={"prompt_tokens": 160, "spread_ms": None}) for row in rows]
    for suffix in ("png", "svg"):
        path = folder / f"prefill.{suffix}"
        plot_prefill([*rows, *longer], "tiny", path)
        assert path.stat().st_size > 1000
        first = path.read_bytes()
        plot_prefill([*rows, *longer], "tiny", path)
        assert path.read_bytes() == first


@pytest.mark.slow
def test_decode(grid: ModelGrid) -> None:
    (rows,) = bench_decode(grid, [(TOKENS[:70], TOKENS[70:])])
    assert [row.contender for row in rows] == ["dense", "shadow", "torch", "llama_cpp"]
    for row in rows:
        assert (row.context, row.tokens, row.rounds) == (70, 10, 2)
        assert row.checked
        assert row.tokens_per_second > 0
        assert (row.agreement is None) == (row.contender == "dense")


def test_those_who_stay_away_say_why(
    tiny_directory: ModelDirectory, mild_plan: Plan, gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = {"torch", "llama_cpp"}
    monkeypatch.setattr(
        "shadowattn_tvm.bench.model_contenders._installed", lambda name: name not in missing
    )
    found, skipped = model_contenders(tiny_directory, mild_plan, gguf=gguf)
    assert [each.name for each in found] == ["dense", "shadow"]
    reasons = {each.contender: each.reason for each in skipped}
    assert "shadowattn-tvm[calibrate]" in reasons["torch"]
    assert "shadowattn-tvm[llama]" in reasons["llama_cpp"]
    missing.clear()
    found, skipped = model_contenders(tiny_directory, mild_plan, without=("shadow",))
    assert [each.name for each in found] == ["dense", "torch"]
    assert {each.contender: each.reason for each in skipped}["shadow"] == "not asked for"
    assert "--gguf" in skipped[-1].reason


def test_dense_alone_is_not_checked(grid: ModelGrid) -> None:
    dense: Sequence[ModelContender] = [c for c in grid.contenders if c.name == "dense"]
    (rows,) = bench_prefill(dataclasses.replace(grid, contenders=dense, rounds=1), [TOKENS[:20]])
    assert [(row.contender, row.checked, row.spread_ms) for row in rows] == [("dense", False, None)]


@pytest.mark.parametrize(("tokens", "rounds"), [(16, 5), (512, 5), (2048, 3), (4096, 1), (8000, 1)])
def test_long_prompts_take_fewer_rounds(tokens: int, rounds: int) -> None:
    assert prefill_rounds(tokens) == rounds
