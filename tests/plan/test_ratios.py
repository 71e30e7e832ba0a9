"""The ratios document: strict, and able to give a profile back as it came."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shadowattn_tvm.errors import PlanError
from shadowattn_tvm.plan import Plan, RatioProfile, load_ratios, save_ratios
from shadowattn_tvm.plan.ratios import RatioSource, mean_ratio, parse_ratio, plan_keep_ratios

RATIOS = ((1.0, 0.5, 0.25), (0.125, 0.0, 0.1))


@pytest.fixture
def profile() -> RatioProfile:
    return RatioProfile(
        ratio=mean_ratio(RATIOS),
        source=RatioSource(name="profile.txt", sha256="a" * 64),
        keep_ratios=RATIOS,
    )


def test_saved_ratios_load_equal(profile: RatioProfile, tmp_path: Path) -> None:
    save_ratios(profile, tmp_path / "ratios.json")
    assert load_ratios(tmp_path / "ratios.json") == profile
    assert (profile.num_layers, profile.num_q_heads) == (2, 3)
    assert profile.ratio == pytest.approx(1.975 / 6)


def test_ratios_of_another_shape_are_refused(profile: RatioProfile) -> None:
    profile.require_shape(2, 3)
    with pytest.raises(PlanError, match=r"profile.txt .* expected 3 layers of 6 .* got 2 of 3"):
        profile.require_shape(3, 6)


def _set(*path: str | int, to: Any) -> Callable[[dict[str, Any]], None]:
    def apply(document: dict[str, Any]) -> None:
        *parents, last = path
        node: Any = document
        for part in parents:
            node = node[part]
        node[last] = to

    return apply


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_set("document", to="shadowattn-plan"), "expected a ratios file"),
        (_set("schema_version", to=2), "schema_version"),
        (_set("surprise", to=1), "surprise"),
        (_set("keep_ratios", to=[]), "keep_ratios"),
        (_set("keep_ratios", 0, to=[]), "keep_ratios.0"),
        (_set("keep_ratios", 1, to=[0.1]), r"keep_ratios\[1\]: expected 3 heads .* got 1"),
        (_set("keep_ratios", 1, 2, to=1.5), "keep_ratios.1.2"),
        (_set("keep_ratios", 1, 2, to=float("nan")), "keep_ratios.1.2"),
        (_set("keep_ratios", 1, 2, to="0.1"), "keep_ratios.1.2"),
        (_set("ratio", to=0.5), "ratio: expected the mean of keep_ratios"),
        (_set("source", "sha256", to="x"), "source.sha256"),
        (_set("spellings", to=[["1.0"]]), "spellings: expected the shape"),
        (
            _set("spellings", to=[["1.0", "0.5", "0.26"], ["0.125", "0", "0.1"]]),
            r"spellings\[0\]\[2\]: expected 0.25, got '0.26'",
        ),
    ],
)
def test_damaged_ratios_name_the_value(
    damage: Callable[[dict[str, Any]], None],
    message: str,
    profile: RatioProfile,
    tmp_path: Path,
) -> None:
    document = json.loads(profile.model_dump_json())
    damage(document)
    (tmp_path / "ratios.json").write_text(json.dumps(document))
    with pytest.raises(PlanError, match=message):
        load_ratios(tmp_path / "ratios.json")


def test_missing_ratios_say_how_to_make_them(tmp_path: Path) -> None:
    with pytest.raises(PlanError, match="import-profile"):
        load_ratios(tmp_path / "none.json")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("0.2", 0.2), ("1", 1.0), ("1.0", 1.0), ("0", 0.0), (".5", 0.5), ("5e-1", 0.5),
        ("1.", 1.0), ("0.20", 0.2), ("1E-3", 0.001), ("1.5", None), ("-0.0", None), ("+1", None),
        ("nan", None), ("inf", None), ("1_0e-2", None), ("", None), (".", None), ("0x1", None),
        ("1e", None), ("\u0661", None), ("0,2", None), ("1e400", None), ("0.2\n", None),
    ],
)  # fmt: skip
def test_what_counts_as_a_ratio(text: str, value: float | None) -> None:
    assert parse_ratio(text) == value


def test_a_plans_ratios_count_dense_layers_as_one(tiny_plan: Plan) -> None:
    rows = plan_keep_ratios(tiny_plan)
    assert rows == ((1.0,) * 6, (0.25,) * 6, (0.25,) * 6)
    assert mean_ratio(rows) == pytest.approx(tiny_plan.past_fraction)
