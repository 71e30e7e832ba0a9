"""The plan document: strict, versioned, identified by what changes the code."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shadowattn_tvm.config import configs_dir
from shadowattn_tvm.errors import PlanError
from shadowattn_tvm.plan import Plan, Sharing, load_plan, plan_hash, save_plan
from shadowattn_tvm.weights import ModelDirectory
from tests.plan.tiny_plan import cost_model, make_plan, shared_lists, stage_costs


def test_a_saved_plan_loads_equal(tiny_plan: Plan, tmp_path: Path) -> None:
    save_plan(tiny_plan, tmp_path / "plan.json")
    assert load_plan(tmp_path / "plan.json") == tiny_plan


def test_saving_twice_gives_the_same_bytes(tiny_plan: Plan, tmp_path: Path) -> None:
    for name in ("a.json", "b.json"):
        save_plan(tiny_plan, tmp_path / name)
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_hash_follows_content_and_ignores_provenance(tiny_directory: ModelDirectory) -> None:
    base = plan_hash(make_plan(tiny_directory))
    assert base == plan_hash(make_plan(tiny_directory, corpus="another"))
    assert base != plan_hash(make_plan(tiny_directory, keep_ratio=0.3))


def test_an_order_of_heads_is_part_of_the_code_and_its_reasons_are_not(
    tiny_plan: Plan, tmp_path: Path
) -> None:
    plain = shared_lists(tiny_plan, Sharing(gqa_group=True, query_block=8))
    assert (plain.unit_heads, plain.num_units) == (3, 2)
    ordered = plain.model_copy(update={"head_order": ((1, 0), (0, 1), ((1, 0),))})
    measured = ordered.model_copy(update={"stage_costs": stage_costs(cost_model())})
    save_plan(measured, tmp_path / "plan.json")
    assert load_plan(tmp_path / "plan.json") == measured
    assert plan_hash(plain) != plan_hash(ordered) == plan_hash(measured)


def test_plans_keep_their_hashes() -> None:
    """Results in docs name the shipped plans by it."""
    plan = load_plan(configs_dir() / "plans" / "smollm2-135m-r20-per-query.json")
    assert plan_hash(plan).startswith("f9406113cc36")


def test_plans_from_before_sparse_decode_load_and_keep_their_hash(
    tiny_plan: Plan, tmp_path: Path
) -> None:
    document = json.loads(tiny_plan.model_dump_json())
    assert document.pop("decode") == "dense"
    (tmp_path / "old.json").write_text(json.dumps(document))
    assert load_plan(tmp_path / "old.json") == tiny_plan
    sparse = tiny_plan.model_copy(update={"decode": "sparse"})
    save_plan(sparse, tmp_path / "sparse.json")
    assert load_plan(tmp_path / "sparse.json") == sparse
    assert plan_hash(sparse) != plan_hash(tiny_plan)


def test_strides_are_part_of_the_code_and_plans_from_before_them_keep_their_hash(
    tiny_plan: Plan, tmp_path: Path
) -> None:
    plain = shared_lists(tiny_plan, Sharing(query_block=16))
    document = json.loads(plain.model_dump_json())
    for layer in document["layers"]:
        for head in layer["heads"]:
            assert head.pop("query_stride") == 1
    (tmp_path / "old.json").write_text(json.dumps(document))
    old = load_plan(tmp_path / "old.json")
    assert (old, plan_hash(old), old.voting_fraction) == (plain, plan_hash(plain), 1.0)
    document["layers"][1]["heads"][0]["query_stride"] = 4
    (tmp_path / "sampled.json").write_text(json.dumps(document))
    sampled = load_plan(tmp_path / "sampled.json")
    assert plan_hash(sampled) != plan_hash(plain)
    assert sampled.voting_fraction == pytest.approx(1 - 0.75 / 12)  # the first layer runs dense


@pytest.mark.parametrize(
    ("stride", "sharing", "message"),
    [
        (8, Sharing(query_block=16), "query_stride: expected one of 1, 2, 4 with .* 16, got 8"),
        (2, Sharing(gqa_group=True), "query_stride: expected one of 1 with .* 1, got 2"),
        (3, Sharing(query_block=16), "expected one of 1, 2, 4 .* got 3"),
        (2, Sharing(gqa_group=True, query_block=8), "share their lists, expected 1, got 2"),
    ],
)
def test_a_stride_that_lists_do_not_allow_is_refused(
    stride: int, sharing: Sharing, message: str, tiny_plan: Plan, tmp_path: Path
) -> None:
    document = json.loads(shared_lists(tiny_plan, sharing).model_dump_json())
    document["layers"][1]["heads"][1]["query_stride"] = stride
    (tmp_path / "plan.json").write_text(json.dumps(document))
    with pytest.raises(PlanError, match=message):
        load_plan(tmp_path / "plan.json")


def test_the_rest_is_part_of_the_code_and_plans_from_before_it_keep_their_hash(
    tiny_plan: Plan, tmp_path: Path
) -> None:
    path = tmp_path / "plan.json"
    save_plan(tiny_plan, path)
    content = json.loads(path.read_text())
    assert content.pop("rest") == "dropped"
    path.write_text(json.dumps(content))
    before = load_plan(path)
    assert before == tiny_plan
    assert plan_hash(tiny_plan.model_copy(update={"rest": "mean"})) != plan_hash(before)
    path.write_text(json.dumps({**content, "rest": "median"}))
    with pytest.raises(PlanError, match=r"rest.*'dropped' or 'mean'"):
        load_plan(path)


def test_another_way_to_decode_is_refused(tiny_plan: Plan, tmp_path: Path) -> None:
    document = json.loads(tiny_plan.model_dump_json()) | {"decode": "fast"}
    (tmp_path / "plan.json").write_text(json.dumps(document))
    with pytest.raises(PlanError, match=r"decode: .*'dense' or 'sparse'"):
        load_plan(tmp_path / "plan.json")


@pytest.mark.parametrize(
    ("order", "message"),
    [
        ([[1, 0]], "head_order: expected 3 layers, got 1"),
        ([[1, 0], [0, 1], [0, 0]], r"head_order\[2\]: expected each of 0..1 once, got \[0, 0\]"),
        ([[1, 0], [0], [0, 1]], r"head_order\[1\]: expected each of 0..1 once, got \[0\]"),
        ([[1, 0], [0, 1], [0, "1"]], r"head_order.2.1"),
        ([[1, 0], [0, 1], [[0, 0], 1]], r"head_order\[2\]: .* once, got \[0, 0, 1\]"),
        ([[1, 0], [0, 1], [[0], 1]], r"head_order.2.0"),
        ([[1, 0], [0, 1], [[], 0, 1]], r"head_order.2.0"),
        ("10", "head_order"),
    ],
)
def test_what_is_no_order_of_units_is_refused(
    order: object, message: str, tiny_plan: Plan, tmp_path: Path
) -> None:
    plan = shared_lists(tiny_plan, Sharing(gqa_group=True, query_block=8))
    document = json.loads(plan.model_dump_json())
    document["head_order"] = order
    (tmp_path / "plan.json").write_text(json.dumps(document))
    with pytest.raises(PlanError, match=message):
        load_plan(tmp_path / "plan.json")


def test_past_fraction_counts_dense_layers(tiny_plan: Plan) -> None:
    assert tiny_plan.past_fraction == pytest.approx((1 + 0.25 + 0.25) / 3)
    assert tiny_plan.dense_layers == (0,)


def _set(path: str, value: object) -> Callable[[dict[str, Any]], None]:
    def apply(document: dict[str, Any]) -> None:
        *parents, last = path.split(".")
        node: Any = document
        for part in parents:
            node = node[int(part)] if part.isdigit() else node[part]
        node[last] = value

    return apply


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_set("schema_version", 1), "expected schema_version 2, got 1"),
        (_set("surprise", 1), "surprise"),
        (_set("k_min", 0), "k_min"),
        (_set("k_min", "32"), "k_min"),
        (_set("buckets.sigma", 1.0), "buckets.sigma"),
        (_set("pilot.bits", 5), "pilot.bits"),
        (
            _set("pilot.score_bits", 8),
            "requant: expected a table just if",
        ),
        (_set("pilot.center_keys", True), "key_means: expected them just if"),
        (_set("layers.1.key_means", [[0.0]]), "key_means: expected them just if"),
        (_set("buckets.per_axis", 2), "buckets.per_axis"),
        (_set("sharing.query_block", 24), "sharing.query_block"),
        (_set("sharing.query_block", 32), "sharing: lists are pooled from requantized scores"),
        (_set("layers.1.heads.0.keep_ratio", 1.5), "layers.1.heads.0.keep_ratio"),
        (_set("layers.1.heads.0.q_scale", 0.0), "layers.1.heads.0.q_scale"),
        (_set("layers.1.heads.0.q_scale", float("nan")), "layers.1.heads.0.q_scale"),
        (_set("layers.1.heads.1.k_scale", 9.0), "GQA group share one K"),
        (_set("model.num_layers", 4), "expected 4 layers, got 3"),
        (_set("model.num_kv_heads", 4), "multiple of num_kv_heads"),
        (_set("head_order", [list(range(6))] * 3), "head_order: only shared lists take turns"),
        (_set("stage_costs", {}), "stage_costs.model"),
    ],
)
def test_a_damaged_plan_names_the_value(
    damage: Callable[[dict[str, Any]], None], message: str, tiny_plan: Plan, tmp_path: Path
) -> None:
    document = json.loads(tiny_plan.model_dump_json())
    damage(document)
    (tmp_path / "plan.json").write_text(json.dumps(document))
    with pytest.raises(PlanError, match=message):
        load_plan(tmp_path / "plan.json")


def test_every_required_field_is_missed_by_name(tiny_plan: Plan, tmp_path: Path) -> None:
    document = json.loads(tiny_plan.model_dump_json())
    for field in ("model", "buckets", "k_min", "layers", "provenance"):
        damaged = copy.deepcopy(document)
        del damaged[field]
        (tmp_path / "plan.json").write_text(json.dumps(damaged))
        with pytest.raises(PlanError, match=field):
            load_plan(tmp_path / "plan.json")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b'"x"', b"\xff\xfe{}", b"[" * 100_000])
def test_what_is_not_json_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_bytes(content)
    with pytest.raises(PlanError, match=r"plan\.json"):
        load_plan(tmp_path / "plan.json")


def test_a_missing_plan_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="shadowattn calibrate"):
        load_plan(tmp_path / "none.json")
