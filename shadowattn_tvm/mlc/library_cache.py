"""Libraries that mlc_llm's other commands need, compiled once.

MLC compiles what it needs by itself, into a cache whose key knows nothing of plans: it would find
the dense library of the same model there, and use it. So a library with shadowAttn is compiled
first, into our cache, and handed over by name.
"""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from ..compiler.cache import cached_library_path, hash_of_sources, source_hash
from ..config.atomic import write_atomically
from ..config.chat_config import CHAT_CONFIG_FILE
from ..errors import ConfigError
from ..plan import Plan, plan_hash
from ..weights.tensor_cache import TENSOR_CACHE_FILE
from .compile import compile_with
from .report import CompileReport, read_report, write_report

_DEFAULT_OPT = "O2"
"""MLC's, where the user says nothing."""

_COMPILED_IN = (
    "context_window_size",
    "sliding_window_size",
    "prefill_chunk_size",
    "attention_sink_size",
    "max_batch_size",
    "tensor_parallel_shards",
    "pipeline_parallel_stages",
)
"""Overrides of `mlc_llm compile` that its engine passes on when it compiles by itself."""


@dataclass(frozen=True)
class LibraryRequest:
    """A library to be had.

    Attributes
    ----------
    model : what the user calls the model: a directory, or HF://....
    device : MLC's name for what to compile for.
    overrides : limits, by MLC's names; None where nothing was said.
    opt : MLC's optimization flags, or None.
    suffix : ".so" to load here, ".tar" to link into an app.
    system_lib_prefix : name of an archive's library in the app; None to have one made up.
    """

    model: str
    device: str
    overrides: Mapping[str, Any]
    opt: str | None = None
    suffix: str = ".so"
    system_lib_prefix: str | None = None


@dataclass(frozen=True)
class ReadyLibrary:
    """Where it is, its name in an app, and what was done to it."""

    path: Path
    system_lib_prefix: str | None
    report: CompileReport


def ready_library(request: LibraryRequest, plan: Plan | None) -> ReadyLibrary:
    """The library, from the cache or compiled into it. Raises like `compile_with`."""
    folder = _model_folder(request.model)
    key = _key(folder, request, plan)
    prefix = request.system_lib_prefix
    if request.suffix == ".tar" and prefix is None:
        prefix = f"shadowattn_{key[:32]}"
    path = cached_library_path(key, request.suffix)
    record = path.with_suffix(".json")
    if not (path.is_file() and record.is_file()):
        overrides = ";".join(f"{name}={value}" for name, value in _limits(request).items())
        argv = [str(folder), "--device", request.device, "--overrides", overrides]
        argv += ["--opt", request.opt or _DEFAULT_OPT]
        if prefix is not None:
            argv += ["--system-lib-prefix", f"{prefix}_"]
        with write_atomically(path) as staged:
            report = compile_with([*argv, "--output", str(staged)], plan)
        write_report(record, [report.model_copy(update={"output": str(path)})])
    return ReadyLibrary(path, prefix, read_report(record))


def _model_folder(model: str) -> Path:
    """The model's folder, fetched by MLC if that is what its name says."""
    downloads = importlib.import_module("mlc_llm.support.download_cache")
    try:
        return Path(downloads.get_or_download_model(model))
    except FileNotFoundError as error:
        raise ConfigError(f"{model}: expected a model directory of MLC's: {error}") from None


def _limits(request: LibraryRequest) -> dict[str, Any]:
    return {
        name: request.overrides[name]
        for name in _COMPILED_IN
        if request.overrides.get(name) is not None
    }


def _key(folder: Path, request: LibraryRequest, plan: Plan | None) -> str:
    """SHA-256 (hex) over everything the library depends on, MLC's compiler and ours included."""
    auto_target = importlib.import_module("mlc_llm.support.auto_target")
    target, _ = auto_target.detect_target_and_host(request.device)
    mlc_llm = Path(str(importlib.import_module("mlc_llm").__file__)).parent
    content = {
        "description": _file_hash(folder / CHAT_CONFIG_FILE),
        "weights": _file_hash(folder / TENSOR_CACHE_FILE),
        "target": json.dumps(dict(target.export()), sort_keys=True, default=str),
        "overrides": _limits(request),
        "opt": request.opt or _DEFAULT_OPT,
        "suffix": request.suffix,
        "system_lib_prefix": request.system_lib_prefix,
        "plan": None if plan is None else plan_hash(plan),
        "tvm": version("apache-tvm"),
        "mlc_llm": hash_of_sources([mlc_llm]),
        "source": source_hash(),
        "hooks": hash_of_sources([Path(__file__).parent]),
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _file_hash(path: Path) -> str | None:
    """SHA-256 (hex) of a file; None if there is none. A weights index names its shards' sums."""
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
