"""Cost tables of real devices: one TOML file each in `configs/devices`, its sources stated."""

from __future__ import annotations

import tomllib
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from ..errors import ConfigError
from .cost_model import CostModel
from .documents import read_text, validated
from .paths import configs_dir


class _Document(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class CostSources(_Document):
    """Where the figures of each stage are from: measured by whom, or derived how."""

    pilot: str
    select: str
    attend: str


class DeviceCosts(_Document):
    """One file of `configs/devices`."""

    name: str
    description: str
    sources: CostSources
    costs: CostModel


def known_devices() -> tuple[str, ...]:
    """Names of the devices we ship a cost table of, sorted."""
    return tuple(sorted(path.stem for path in _folder().glob("*.toml")))


def device_costs(name: str) -> DeviceCosts:
    """The costs of a device: a name we know, or a .toml file. Raises `ConfigError` for what is
    neither, and for a malformed file."""
    path = Path(name) if name.endswith(".toml") else _folder() / f"{name}.toml"
    if not name.endswith(".toml") and name not in known_devices():
        raise ConfigError(
            f"unknown device {name!r}: expected a .toml file or one of {', '.join(known_devices())}"
        )
    try:
        content = tomllib.loads(read_text(path))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: expected TOML, got {error}") from None
    return validated(DeviceCosts, content, str(path))


def _folder() -> Path:
    return configs_dir() / "devices"
