"""`mlc_llm compile` with our attention in the library it makes.

MLC's own command runs, from its argument parser to its linker, with two of its names replaced: the
function that finds the model, to learn where it is, and the one that compiles, to have `BuildHook`
around the step from the traced model to the library.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, get_args

import tvm

from ..config.chat_config import CHAT_CONFIG_FILE
from ..config.documents import read_json_object
from ..config.hugging_face import ModelType
from ..errors import CompileError
from ..plan import Plan
from ..weights import ModelDirectory, open_model_directory
from ..weights.tensor_cache import TENSOR_CACHE_FILE
from .build import BuildHook
from .installation import require_known_layout, swapped
from .report import CompileReport

QUANTIZATIONS = ("q0f32", "q0f16", "q4f16_1", "q4f32_1")
"""MLC's names for those that shadowAttn is made for."""

_SHORTEST_PREFIX = 8
"""Bytes: TVM 0.26 stores shorter strings inline, where the reader of this one doesn't look."""


def compile_with(argv: Sequence[str], plan: Plan | None) -> CompileReport:
    """Run `mlc_llm compile` on `argv` (what follows the subcommand) with a plan, or with our dense
    kernels where it is None.

    Raises `ConfigError` (an mlc_llm of another layout), `PlanError` (a plan of another model),
    `CompileError` (a model or target we have no kernels for), before anything is compiled; exits
    as MLC does where it doesn't understand the arguments.
    """
    require_known_layout()
    command = importlib.import_module("mlc_llm.cli.compile")
    hook = _Hook(plan)
    with swapped(
        command,
        detect_mlc_chat_config=hook.finding(command.detect_mlc_chat_config),
        compile=hook.compiling(command.compile),
    ):
        command.main(list(argv))
    assert hook.report is not None, "require_known_layout lets nothing through that passes us by"
    return hook.report


class _Hook:
    """What is learned on the way, from one replaced function to the next."""

    def __init__(self, plan: Plan | None) -> None:
        self.plan = plan
        self.description: Path | None = None
        self.report: CompileReport | None = None

    def finding(self, original: Callable[[str], Path]) -> Callable[[str], Path]:
        """For `detect_mlc_chat_config`."""

        def detect_mlc_chat_config(model: str) -> Path:
            self.description = original(model)
            return self.description

        return detect_mlc_chat_config

    def compiling(self, original: Callable[..., None]) -> Callable[..., None]:
        """For `compile`: all that the user has said is in its arguments."""

        def compile_(**arguments: Any) -> None:
            _require_supported(arguments)
            assert self.description is not None
            build = BuildHook(self.plan, _weights_beside(self.description))
            changed = {
                "target": _hosted_by_itself(arguments["target"]),
                "build_func": build.around(arguments["build_func"]),
            }
            original(**{**arguments, **changed})
            self.report = build.report

        return compile_


def _require_supported(arguments: dict[str, Any]) -> None:
    quantization = arguments["quantization"].name
    if quantization not in QUANTIZATIONS:
        raise CompileError(
            f"expected one of the quantizations {', '.join(QUANTIZATIONS)}, got {quantization}"
        )
    prefix = arguments["system_lib_prefix"]
    if prefix and len(prefix) < _SHORTEST_PREFIX:
        raise CompileError(
            f"--system-lib-prefix: expected at least {_SHORTEST_PREFIX} characters (TVM 0.26 fails "
            f"with less), got {prefix!r}"
        )


def _hosted_by_itself(target: tvm.target.Target) -> tvm.target.Target:
    """A CPU is its own host. MLC takes this machine's for it, or one of `--host`'s triple and no
    particular CPU, and TVM compiles the kernels for the host."""
    if target.kind.name != "llvm":
        return target
    alone = {name: value for name, value in dict(target.export()).items() if name != "host"}
    return tvm.target.Target(alone, host=tvm.target.Target(alone))


def _weights_beside(description: Path) -> Callable[[], ModelDirectory | None]:
    """Opens the directory that `description` is of, if it has weights (MLC compiles from a
    description alone) and is of a model that we read."""

    def open_directory() -> ModelDirectory | None:
        folder = description.parent
        if description.name != CHAT_CONFIG_FILE or not (folder / TENSOR_CACHE_FILE).is_file():
            return None
        if read_json_object(description).get("model_type") not in get_args(ModelType):
            return None
        return open_model_directory(folder)

    return open_directory
