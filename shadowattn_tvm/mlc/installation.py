"""The mlc_llm that is there: found, imported, and checked to be of the layout we hook into.

MLC-LLM has no plug-in mechanism and no stable interface. What we rely on is listed here, so that
another version gives one message before anything is compiled.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

import tvm

from ..errors import ConfigError
from .checkout import SOURCE_VARIABLE, complete_checkout, use_checkout

TESTED = (
    "mlc_llm 0.20.0.dev0 (its source of July 2026, commit 79d603f0) with apache-tvm 0.26.0 and "
    "apache-tvm-ffi 0.1.13.post2"
)
_TVM_VERSION = "0.26.0"

_LOOKED_UP: Mapping[str, Mapping[tuple[str, str], tuple[str, ...]]] = {
    "compile": {
        ("mlc_llm.cli.compile", "main"): ("compile", "detect_mlc_chat_config"),
        ("mlc_llm.compiler_pass.pipeline", "_mlc_llm_pipeline"): (
            "DispatchKVCacheCreation",
            "LowBatchGemvSpecialize",
            "LiftTIRGlobalBufferAlloc",
        ),
    },
    "chat": {("mlc_llm.cli.chat", "main"): ("chat",)},
    "serve": {("mlc_llm.cli.serve", "main"): ("serve",)},
    "package": {("mlc_llm.cli.package", "main"): ("package",)},
}
"""By subcommand and (module, function): the globals that function looks up by name when it runs,
which is what makes replacing them work."""

_COMPILE_ARGUMENTS = ("config", "quantization", "model_type", "target", "build_func", "overrides")


def is_installed() -> bool:
    """Whether an mlc_llm can be tried: a checkout is named, or a package is there. Never raises."""
    try:
        return (
            bool(os.environ.get(SOURCE_VARIABLE)) or importlib.util.find_spec("mlc_llm") is not None
        )
    except (ImportError, ValueError):
        return False


def import_mlc_llm() -> ModuleType:
    """The package, imported. Raises `ConfigError` if there is none, or it doesn't import here."""
    source = os.environ.get(SOURCE_VARIABLE)
    if source:
        use_checkout(Path(source))
    elif not is_installed():
        raise ConfigError(
            "mlc_llm is not installed: install MLC-LLM's wheels "
            "(https://llm.mlc.ai/docs/install/mlc_llm.html; what PyPI has under that name is an "
            f"empty placeholder), or name a checkout of its source in {SOURCE_VARIABLE}. Tested: "
            f"{TESTED}"
        )
    try:
        package = importlib.import_module("mlc_llm")
        if source:
            complete_checkout()
    except Exception as error:  # a foreign package's import can fail in any way
        raise ConfigError(
            f"can't import mlc_llm{f' from {source}' if source else ''}: "
            f"{type(error).__name__}: {error}. Tested: {TESTED}"
        ) from error
    return package


def require_known_layout(subcommand: str = "compile") -> None:
    """Raise `ConfigError`, naming what is different and the tested versions, unless TVM and mlc_llm
    are built the way our hooks for `compile`, and for `subcommand`, need."""
    problems = []
    if tvm.__version__ != _TVM_VERSION:
        problems.append(f"TVM is {tvm.__version__}, expected {_TVM_VERSION}")
    looked_up = {**_LOOKED_UP["compile"], **_LOOKED_UP[subcommand]}
    for (module_name, function_name), names in looked_up.items():
        try:
            module = importlib.import_module(module_name)
        except ImportError as error:
            problems.append(f"{module_name} can't be imported ({error})")
            continue
        code = getattr(getattr(module, function_name, None), "__code__", None)
        used = _global_names(code) if code is not None else set()
        for name in names:
            if name not in used or not hasattr(module, name):
                problems.append(f"{module_name}.{function_name} uses no {name}")
    problems += _signature_problems()
    if problems:
        raise ConfigError(
            "this mlc_llm is not one that shadowAttn knows how to hook into, so nothing was "
            f"compiled: {'; '.join(problems)}. Tested: {TESTED}. Without --shadow-attn "
            "everything is left to mlc_llm itself"
        )


def _signature_problems() -> Iterator[str]:
    try:
        compile_ = importlib.import_module("mlc_llm.interface.compile").compile
        dispatch = importlib.import_module("mlc_llm.compiler_pass.dispatch_kv_cache_creation")
        arguments = compile_.__code__.co_varnames[: compile_.__code__.co_argcount]
        missing = [name for name in _COMPILE_ARGUMENTS if name not in arguments]
        if missing:
            yield f"mlc_llm.interface.compile.compile takes no {', '.join(missing)}"
        if not callable(getattr(dispatch, "extract_creation_args", None)):
            yield "mlc_llm.compiler_pass.dispatch_kv_cache_creation has no extract_creation_args"
    except (ImportError, AttributeError) as error:
        yield str(error)


def _global_names(code: CodeType) -> set[str]:
    """Names a function, or one defined in it, looks up globally (or as attributes)."""
    inner = (constant for constant in code.co_consts if isinstance(constant, CodeType))
    return set(code.co_names).union(*map(_global_names, inner))


@contextmanager
def swapped(module: ModuleType, **replacements: Any) -> Iterator[None]:
    """Globals of a module of mlc_llm's, replaced for a while."""
    before = {name: getattr(module, name) for name in replacements}
    for name, value in replacements.items():
        setattr(module, name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(module, name, value)
