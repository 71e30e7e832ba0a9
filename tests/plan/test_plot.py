"""Plots: files of the kind asked for, the same for the same plan, with the plan's numbers in it."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from shadowattn_tvm.errors import ConfigError
from shadowattn_tvm.plan import Plan, RatioProfile
from shadowattn_tvm.plan.plot import PLOT_SUFFIXES, plot_plan, plot_profile, require_plotting
from shadowattn_tvm.plan.ratios import RatioSource, mean_ratio
from shadowattn_tvm.weights import ModelDirectory
from tests.plan.tiny_plan import make_plan

SVG_IMAGE = "{http://www.w3.org/2000/svg}image"
PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


@pytest.fixture
def profile() -> RatioProfile:
    rows = tuple(tuple((layer + head) / 60 for head in range(24)) for layer in range(36))
    return RatioProfile(
        ratio=mean_ratio(rows),
        source=RatioSource(name="p.txt", sha256="0" * 64),
        keep_ratios=rows,
    )


def _images(path: Path) -> int:
    """Heat maps and colour bars in an SVG."""
    return len(list(ElementTree.parse(path).iter(SVG_IMAGE)))


def test_a_plan_is_drawn_with_its_scales(tiny_plan: Plan, tmp_path: Path) -> None:
    plot_plan(tiny_plan, "a title", tmp_path / "plan.svg")
    plot_plan(tiny_plan, "a title", tmp_path / "plan.PNG")
    assert (tmp_path / "plan.PNG").read_bytes().startswith(PNG_SIGNATURE)
    # Ratios, Q scales, K scales, and a colour bar each.
    assert _images(tmp_path / "plan.svg") == 6


def test_ratios_are_drawn_alone(profile: RatioProfile, tmp_path: Path) -> None:
    plot_profile(profile, "a title", tmp_path / "ratios.svg")
    assert _images(tmp_path / "ratios.svg") == 2


@pytest.mark.parametrize("suffix", PLOT_SUFFIXES)
def test_the_same_plan_gives_the_same_bytes_and_another_does_not(
    suffix: str, tiny_plan: Plan, tiny_directory: ModelDirectory, tmp_path: Path
) -> None:
    plans = {"a": tiny_plan, "b": tiny_plan, "other": make_plan(tiny_directory, keep_ratio=0.6)}
    for name, plan in plans.items():
        plot_plan(plan, "a title", tmp_path / f"{name}{suffix}")
    first, second, other = ((tmp_path / f"{name}{suffix}").read_bytes() for name in plans)
    assert first == second
    assert first != other


def test_drawing_leaves_pyplot_alone(tiny_plan: Plan, tmp_path: Path) -> None:
    loaded = "matplotlib.pyplot" in sys.modules
    plot_plan(tiny_plan, "a title", tmp_path / "plan.png")
    assert ("matplotlib.pyplot" in sys.modules) == loaded


@pytest.mark.parametrize("name", ["plan.pdf", "plan", "plan.png.txt"])
def test_other_kinds_of_file_are_refused(name: str, tiny_plan: Plan, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"ending in \.png or \.svg, got"):
        plot_plan(tiny_plan, "a title", tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_without_matplotlib_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec

    def no_matplotlib(name: str, package: str | None = None) -> Any:
        return None if name == "matplotlib" else find_spec(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", no_matplotlib)
    with pytest.raises(ConfigError, match=r"shadowattn-tvm\[report\]"):
        require_plotting(Path("plan.png"))
