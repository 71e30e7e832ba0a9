"""Devices by name: `configs/targets/*.toml` to TVM targets."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tvm
from pydantic import BaseModel, ConfigDict, Field, NonNegativeInt, PositiveInt
from tvm.target.codegen import llvm_get_system_cpu, llvm_get_system_triple

from ..config.documents import read_text, validated
from ..config.paths import configs_dir
from ..errors import ConfigError

_NATIVE = "native"
_GPU = "opencl"
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


class GpuConfig(BaseModel):
    """One file of `configs/targets` whose kernels run on a GPU.

    `device` : TVM's name for the family. `max_threads_per_block` : work-items of a group.
    `host_triple` : what runs the code that starts them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    description: str
    kind: Literal["opencl"]
    device: str
    max_threads_per_block: PositiveInt
    host_triple: str


@dataclass(frozen=True)
class Device:
    """What a library is compiled for.

    Attributes
    ----------
    target : for TVM; a GPU's has its host.
    pipeline_workers : as in `TargetConfig`; 0 on a GPU.
    """

    target: tvm.target.Target
    pipeline_workers: int

    @property
    def is_gpu(self) -> bool:
        return str(self.target.kind.name) == _GPU

    @property
    def triple(self) -> str:
        """What the library is linked for."""
        host = self.target.host if self.is_gpu else self.target
        return str(host.attrs["mtriple"])


def target_names() -> tuple[str, ...]:
    """The devices we have a configuration for."""
    return tuple(sorted(path.stem for path in _folder().glob("*.toml")))


def resolve_target(name: str, features: Sequence[str] | None = None) -> tvm.target.Target:
    """The TVM target of a device whose kernels run on a CPU. Raises like `resolve_device`, and for
    a GPU."""
    device = resolve_device(name, features)
    if device.is_gpu:
        raise ConfigError(f"{name} is a GPU: expected a device that computes on its CPU")
    return device.target


def resolve_device(name: str, features: Sequence[str] | None = None) -> Device:
    """A device by name, `android:adreno` (as MLC-LLM spells it) or `android-adreno`; with other
    `features` than its configuration's (LLVM's names, no `+`), if they are given. Raises
    `ConfigError` listing the known ones."""
    stem = name.replace(":", "-")
    if stem not in target_names():
        raise ConfigError(f"unknown device {name!r}: expected one of {', '.join(target_names())}")
    path = _folder() / f"{stem}.toml"
    try:
        document = tomllib.loads(read_text(path))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{path}: expected TOML, got {error}") from None
    if document.get("kind") == _NPU:
        raise ConfigError(
            f"{name} runs pilot graphs and nothing else, expected a device that runs whole models; "
            f"`shadowattn compile --device {name}` makes its graphs"
        )
    if document.get("kind") == _GPU:
        return _gpu(validated(GpuConfig, document, str(path)))
    config = validated(TargetConfig, document, str(path))
    cpu = llvm_get_system_cpu() if config.cpu == _NATIVE else config.cpu
    triple = llvm_get_system_triple() if config.triple == _NATIVE else config.triple
    options = {"kind": config.kind, "mcpu": cpu, "mtriple": triple}
    chosen = config.features if features is None else tuple(f"+{name}" for name in features)
    if chosen:
        options["mattr"] = list(chosen)
    target = tvm.target.Target(options)
    return Device(target, config.pipeline_workers)


def _gpu(config: GpuConfig) -> Device:
    options = {
        "kind": config.kind,
        "device": config.device,
        "max_threads_per_block": config.max_threads_per_block,
        "host": {"kind": "llvm", "mtriple": config.host_triple},
    }
    return Device(tvm.target.Target(options), pipeline_workers=0)


def _folder() -> Path:
    return configs_dir() / "targets"
