"""Hexagon DSPs by name: the files of `configs/targets` whose kind is `hexagon`."""

from __future__ import annotations

import tomllib
from typing import Annotated, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from tir_kernels.hexagon.build import HEXAGON_VERSIONS
from tir_kernels.hexagon.graph_spec import MAX_KEYS
from tir_kernels.hexagon.score_tile import TILE_KEYS

from ...config.documents import read_text, validated
from ...config.paths import configs_dir
from ...errors import ConfigError
from ...graph import GraphSizes

Positive = Annotated[int, Field(ge=1)]


class HexagonConfig(BaseModel):
    """One file.

    Attributes
    ----------
    architecture : of the DSP, one of `HEXAGON_VERSIONS`.
    fused_units, queries, keys : the graphs' sizes, see `GraphSizes`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    description: str
    kind: Literal["hexagon"]
    architecture: str
    fused_units: Annotated[tuple[Positive, ...], Field(strict=False, min_length=1)]
    queries: Positive
    keys: Annotated[tuple[Positive, ...], Field(strict=False, min_length=1)]

    @model_validator(mode="after")
    def _sizes_exist(self) -> Self:
        if self.architecture not in HEXAGON_VERSIONS:
            raise ValueError(
                f"architecture: expected one of {', '.join(HEXAGON_VERSIONS)}, "
                f"got {self.architecture!r}"
            )
        bad = [n for n in self.keys if n % TILE_KEYS or n > MAX_KEYS]
        if bad or list(self.keys) != sorted(set(self.keys)):
            raise ValueError(
                f"keys: expected ascending multiples of {TILE_KEYS} up to {MAX_KEYS}, "
                f"got {list(self.keys)}"
            )
        return self

    @property
    def sizes(self) -> GraphSizes:
        return GraphSizes(self.fused_units, self.queries, self.keys)


def is_hexagon(device: str) -> bool:
    """Whether a device's graphs go into a bank, rather than its kernels into a library."""
    path = configs_dir() / "targets" / f"{device}.toml"
    return (
        path.parent == configs_dir() / "targets" and path.is_file() and _kind(device) == "hexagon"
    )


def hexagon_config(device: str) -> HexagonConfig:
    """A DSP by name. Raises `ConfigError` listing the known ones."""
    folder = configs_dir() / "targets"
    known = [path.stem for path in sorted(folder.glob("*.toml")) if is_hexagon(path.stem)]
    if device not in known:
        raise ConfigError(f"unknown Hexagon {device!r}: expected one of {', '.join(known)}")
    return validated(HexagonConfig, _document(device), str(folder / f"{device}.toml"))


def _kind(device: str) -> object:
    return _document(device).get("kind")


def _document(device: str) -> dict[str, object]:
    path = configs_dir() / "targets" / f"{device}.toml"
    try:
        return tomllib.loads(read_text(path))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: expected TOML, got {error}") from None
