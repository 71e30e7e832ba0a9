"""Devices by name: `configs/targets/*.toml` to TVM targets."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Literal

import tvm
from pydantic import BaseModel, ConfigDict
from tvm.target.codegen import llvm_get_system_cpu, llvm_get_system_triple

from ..config.documents import read_text, validated
from ..config.paths import configs_dir
from ..errors import ConfigError

_NATIVE = "native"


class TargetConfig(BaseModel):
    """One file of `configs/targets`; `native` asks LLVM about this machine."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    description: str
    kind: Literal["llvm"]
    cpu: str
    triple: str


def target_names() -> tuple[str, ...]:
    """The devices we have a configuration for."""
    return tuple(sorted(path.stem for path in _folder().glob("*.toml")))


def resolve_target(name: str) -> tvm.target.Target:
    """The TVM target of a device. Raises `ConfigError` listing the known ones."""
    if name not in target_names():
        raise ConfigError(f"unknown device {name!r}: expected one of {', '.join(target_names())}")
    path = _folder() / f"{name}.toml"
    try:
        document = tomllib.loads(read_text(path))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: expected TOML, got {error}") from None
    config = validated(TargetConfig, document, str(path))
    cpu = llvm_get_system_cpu() if config.cpu == _NATIVE else config.cpu
    triple = llvm_get_system_triple() if config.triple == _NATIVE else config.triple
    return tvm.target.Target({"kind": config.kind, "mcpu": cpu, "mtriple": triple})


def _folder() -> Path:
    return configs_dir() / "targets"
