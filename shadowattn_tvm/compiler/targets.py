"""Devices by name: `configs/targets/*.toml` to TVM targets."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tvm
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt
from tvm.target.codegen import llvm_get_system_cpu, llvm_get_system_triple

from ..config.documents import read_text, validated
from ..config.paths import configs_dir
from ..errors import ConfigError

_NATIVE = "native"
_NPU = "hexagon"
"""The kind of devices whose files `hexagon.targets` reads."""


class TargetConfig(BaseModel):
    """One file of `configs/targets`; `native` asks LLVM about this machine.

    `features` : instructions beyond those of `cpu`, as LLVM spells them.
    `pipeline_workers` : CPU tasks beside that of the NPU; 0 where no NPU takes part, and every
    thread does all stages of its heads.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    description: str
    kind: Literal["llvm"]
    cpu: str
    triple: str
    features: Annotated[tuple[str, ...], Field(strict=False)] = ()  # TOML has lists only
    pipeline_workers: NonNegativeInt = 0


@dataclass(frozen=True)
class Device:
    """What a library is compiled for; fields as in `TargetConfig`."""

    target: tvm.target.Target
    pipeline_workers: int


def target_names() -> tuple[str, ...]:
    """The devices we have a configuration for."""
    return tuple(sorted(path.stem for path in _folder().glob("*.toml")))


def resolve_target(name: str, features: Sequence[str] | None = None) -> tvm.target.Target:
    """The TVM target of a device. Raises like `resolve_device`."""
    return resolve_device(name, features).target


def resolve_device(name: str, features: Sequence[str] | None = None) -> Device:
    """A device by name; with other `features` than its configuration's (LLVM's names, no `+`), if
    they are given. Raises `ConfigError` listing the known ones."""
    if name not in target_names():
        raise ConfigError(f"unknown device {name!r}: expected one of {', '.join(target_names())}")
    path = _folder() / f"{name}.toml"
    try:
        document = tomllib.loads(read_text(path))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: expected TOML, got {error}") from None
    if document.get("kind") == _NPU:
        raise ConfigError(
            f"{name} runs pilot graphs and nothing else, expected a device that runs whole models; "
            f"`shadowattn compile --device {name}` makes its graphs"
        )
    config = validated(TargetConfig, document, str(path))
    cpu = llvm_get_system_cpu() if config.cpu == _NATIVE else config.cpu
    triple = llvm_get_system_triple() if config.triple == _NATIVE else config.triple
    options = {"kind": config.kind, "mcpu": cpu, "mtriple": triple}
    chosen = config.features if features is None else tuple(f"+{name}" for name in features)
    if chosen:
        options["mattr"] = list(chosen)
    target = tvm.target.Target(options)
    return Device(target, config.pipeline_workers)


def _folder() -> Path:
    return configs_dir() / "targets"
