"""Compiled libraries by content: the same inputs give the same file, found at once."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from functools import cache
from importlib.metadata import version
from pathlib import Path

import tir_kernels
from tir_kernels.features import TunedTile

from ..config.architecture import LlamaConfig
from ..config.paths import cache_dir
from ..plan import Plan, plan_hash
from ..weights import ModelDirectory
from .targets import Device


def library_key(
    directory: ModelDirectory,
    architecture: LlamaConfig,
    plan: Plan | None,
    device: Device,
    *,
    open_prefill: bool = False,
    trace: bool = False,
    tuned: tuple[TunedTile, ...] = (),
) -> str:
    """SHA-256 (hex) over everything a library depends on, our own source included."""
    content = {
        "weight_hash": directory.weight_hash,
        "quantization": directory.quantization,
        "architecture": architecture.model_dump(mode="json"),
        "plan_hash": None if plan is None else plan_hash(plan),
        "open_prefill": open_prefill,
        "trace": trace,
        "tuned": {tile.kernel: dict(tile.sizes) for tile in tuned},
        "target": str(device.target),
        "pipeline_workers": device.pipeline_workers,
        "tvm": version("apache-tvm"),
        "source": source_hash(),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def cached_library_path(key: str, suffix: str = ".so") -> Path:
    """Where a library of this key lives, made or not."""
    return cache_dir() / "libraries" / f"{key[:32]}{suffix}"


@cache
def source_hash() -> str:
    """SHA-256 (hex) of the code that makes libraries: a changed kernel is a changed library."""
    ours = Path(__file__).parents[1]
    kernels = Path(str(tir_kernels.__file__)).parent
    packages = ("compiler", "model", "pipeline", "transform")
    return hash_of_sources([kernels, *(ours / name for name in packages)])


def hash_of_sources(folders: Iterable[Path]) -> str:
    """SHA-256 (hex) of the Python files in some folders, by name and content."""
    digest = hashlib.sha256()
    for folder in folders:
        for path in sorted(folder.rglob("*.py")):
            digest.update(path.name.encode())
            digest.update(path.read_bytes())
    return digest.hexdigest()
