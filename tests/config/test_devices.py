"""Cost tables of devices: every file we ship is valid, and mistakes in one are named."""

from __future__ import annotations

from pathlib import Path

import pytest

from shadowattn_tvm.config import configs_dir
from shadowattn_tvm.config.devices import device_costs, known_devices
from shadowattn_tvm.errors import ConfigError

PHONE = "snapdragon-8-gen-3"


@pytest.mark.parametrize("name", known_devices())
def test_every_shipped_table_is_valid(name: str) -> None:
    assert device_costs(name).name == name


def test_the_papers_launches() -> None:
    pilot = device_costs(PHONE).costs.pilot
    times = [pilot.launch_ms(n, queries=128, keys=2048, head_dim=64) for n in (1, 2, 3, 4)]
    assert times == pytest.approx([2.0, 3.0, 4.0, 4.0])


def test_the_derived_figures_are_what_they_are_derived_from() -> None:
    """Of 3.5 ms of dense attention a head: 20 % to attend to 20 % of the keys, 22 % with
    selection."""
    costs = device_costs(PHONE).costs
    attend_ms = costs.attend.ms(queries=128, kept_keys=2048, head_dim=64)
    assert attend_ms == pytest.approx(3.5, rel=0.001)
    select_ms = costs.select.ms(lists=128, keys=2048)
    assert select_ms + 0.2 * attend_ms == pytest.approx(0.22 * attend_ms, rel=0.001)


def test_a_table_of_ones_own(tmp_path: Path) -> None:
    text = (configs_dir() / "devices" / f"{PHONE}.toml").read_text()
    path = tmp_path / "mine.toml"
    path.write_text(text.replace("fixed_ms = 1.0", "fixed_ms = 0.5"))
    assert device_costs(str(path)).costs.pilot.fixed_ms == 0.5


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("fixed_ms = 1.0", "fixed_ms = 3.0", "costs.pilot: fixed_ms: expected at most the 2.0"),
        ("heads = 2", "heads = 1", "more and more heads"),
        ("shared_cpu = true", "", "costs.shared_cpu: Field required"),
        ("[sources]", "[source]", "source: Extra inputs are not permitted"),
        ("[costs]", "[costs", "expected TOML"),
    ],
)
def test_mistakes_in_a_table_are_named(old: str, new: str, message: str, tmp_path: Path) -> None:
    text = (configs_dir() / "devices" / f"{PHONE}.toml").read_text()
    assert old in text
    path = tmp_path / "mine.toml"
    path.write_text(text.replace(old, new))
    with pytest.raises(ConfigError) as error:
        device_costs(str(path))
    assert message in str(error.value)


def test_unknown_devices() -> None:
    with pytest.raises(ConfigError, match=f"unknown device 'toaster'.*{PHONE}"):
        device_costs("toaster")
    with pytest.raises(ConfigError, match=r"can't read none\.toml"):
        device_costs("none.toml")
