"""`bench attention` on a small layer: what the rows say, and that wrong results aren't timed."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from shadowattn_tvm.bench import (
    HERE,
    AttentionBench,
    AttentionGrid,
    bench_attention,
    save_bench,
    skipped_contenders,
    workload,
)
from shadowattn_tvm.bench.inputs import LayerInputs, SlotCall, random_inputs
from shadowattn_tvm.bench.kernels import dense_kernel
from shadowattn_tvm.bench.reference import (
    Expected,
    WrongResultError,
    dense_reference,
    require_close,
)
from shadowattn_tvm.errors import CompileError
from shadowattn_tvm.evaluate.results import these_versions, this_machine
from tests.tir_kernels.shadow.test_lists import PILOTS, SMALL, plan_of
from tir_kernels.spec import ShadowSpec, keep_count

POOLED = plan_of(SMALL, PILOTS["group-block-16"])


def grid(spec: ShadowSpec = POOLED, workers: tuple[int, ...] = (0, 1)) -> AttentionGrid:
    return AttentionGrid(
        spec=spec,
        plan="a plan",
        contexts=(200, 77),
        chunks=(33,),
        workers=workers,
        rounds=2,
        inputs="random",
    )


def one_layer(num_queries: int, num_keys: int) -> Sequence[LayerInputs]:
    return [random_inputs(SMALL, num_queries, num_keys, seed=3)]


def count_references(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How often each reference is computed from now on."""
    counter: Counter[str] = Counter()

    def counted(name: str, reference: Callable[..., Expected]) -> Callable[..., Expected]:
        def count(*arguments: object) -> Expected:
            counter[name] += 1
            return reference(*arguments)

        return count

    for name in [name for name in vars(workload) if name.endswith("_reference")]:
        monkeypatch.setattr(workload, name, counted(name, getattr(workload, name)))
    return counter


def test_rows_say_what_was_timed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    references = count_references(monkeypatch)
    seen: list[tuple[str, int, int]] = []
    batches = list(bench_attention(grid(), one_layer, progress=lambda *at: seen.append(at)))
    assert [rows[0].context for rows in batches] == [200, 77]
    for rows in batches:
        names = [(row.contender, row.workers, row.plan) for row in rows]
        assert names == [
            ("cg_full", 0, None),
            ("torch_sdpa", 0, None),
            ("cg_sparse", 0, "a plan"),
            ("cg_block_sparse", 0, "a plan"),
            ("shadow", 0, "a plan"),
            ("shadow", 1, "a plan"),
            ("npu_full", 0, None),
            ("mlc_tir", 0, None),
        ]
        for row in rows:
            assert row.checked
            assert row.rounds == 2
            assert (row.heads, row.kv_heads, row.head_dim, row.chunk) == (6, 2, 64, 33)
            if row.plan is not None:
                kept = [
                    keep_count(row.context, head.keep_ratio_q16, POOLED.k_min)
                    for layer in POOLED.heads
                    for head in layer
                ]
                assert row.past_fraction == pytest.approx(np.mean(kept) / row.context)
            else:
                assert row.past_fraction == 1.0
    assert seen[-1] == ("77 tokens, chunk of 33", 2, 2)
    # each once for either context, whoever is held against them; two baselines are selective
    assert references == {
        "dense_reference": 2,
        "shadow_reference": 2,
        "selective_reference": 4,
        "static_int8_reference": 2,
    }

    record = AttentionBench(
        created=datetime.now(UTC).replace(microsecond=0),
        command=("shadowattn", "bench"),
        versions=these_versions(),
        machine=this_machine(),
        rows=tuple(row for rows in batches for row in rows),
    )
    save_bench(record, tmp_path / "bench.json")
    document = json.loads((tmp_path / "bench.json").read_text())
    assert len(document["rows"]) == 16
    assert AttentionBench.model_validate(document) == record


def test_pages_hold_keys_and_values_in_order() -> None:
    inputs = random_inputs(SMALL, 1, 37, seed=0)
    pages = inputs.pages(SMALL)
    assert pages.shape == (3, 2, 2, 16, 64)
    for key in (0, 15, 16, 36):
        np.testing.assert_array_equal(pages[key // 16, 0, :, key % 16], inputs.k[key])
        np.testing.assert_array_equal(pages[key // 16, 1, :, key % 16], inputs.v[key])


def test_a_wrong_result_is_not_timed() -> None:
    inputs = random_inputs(SMALL, 5, 40, seed=1)
    call = SlotCall(SMALL, inputs, 0, HERE.device)
    call(dense_kernel(HERE, SMALL), 0.0)
    wanted = dense_reference(SMALL, inputs)
    require_close("dense", call.output(), wanted)
    off = call.output()
    assert off.shape == wanted.output.shape
    off[2, 1, 7] += 0.1
    with pytest.raises(WrongResultError, match=r"dense: its result is off by 0\.1"):
        require_close("dense", off, wanted)
    off[2, 1, 7] = np.nan
    with pytest.raises(WrongResultError, match="off by nan"):
        require_close("dense", off, wanted)


def test_rows_that_hang_on_rounding_are_not_compared() -> None:
    output = random_inputs(SMALL, 5, 1, seed=1).q
    decided = np.ones((5, 6), np.bool_)
    decided[2, 1] = False
    off = output.copy()
    off[2, 1] += 0.1
    require_close("sparse", off, Expected(output, decided))
    off[3, 1, 0] += 0.1
    with pytest.raises(WrongResultError, match=r"sparse: its result is off by 0\.1"):
        require_close("sparse", off, Expected(output, decided))
    with pytest.raises(WrongResultError, match="neither checked nor timed"):
        require_close("sparse", output, Expected(output, np.zeros((5, 6), np.bool_)))


def test_without_torch_the_others_are_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    (skipped,) = skipped_contenders(HERE)
    assert (skipped.contender, "shadowattn-tvm[calibrate]" in skipped.reason) == (
        "torch_sdpa",
        True,
    )
    few = replace(grid(workers=(0,)), contexts=(77,), with_baselines=False, with_stock=False)
    rows = next(iter(bench_attention(few, one_layer)))
    assert [row.contender for row in rows] == ["cg_full", "shadow"]


def test_baselines_can_be_left_out() -> None:
    few = replace(grid(workers=(0,)), with_baselines=False, with_stock=False)
    rows = next(iter(bench_attention(few, one_layer)))
    assert [row.contender for row in rows] == ["cg_full", "torch_sdpa", "shadow"]


def test_a_plan_without_shared_lists_has_no_workers() -> None:
    spec = plan_of(SMALL, PILOTS["plain"])
    with pytest.raises(CompileError, match="a pipeline needs shared lists"):
        next(iter(bench_attention(grid(spec, workers=(1,)), one_layer)))
