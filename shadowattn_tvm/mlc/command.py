"""The entry: mlc_llm's command line, with `--shadow-attn` in front of it or not."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable, Mapping, Sequence

from ..errors import ConfigError
from ..plan import Plan, find_plan
from .arguments import REPORT, SHADOW_ATTN, Arguments, take_apart
from .compile import compile_with
from .engine import chat_with, serve_with
from .installation import import_mlc_llm
from .package import package_with
from .report import CompileReport, describe, write_report

Command = Callable[[Sequence[str], Plan | None], tuple[CompileReport, ...]]
"""Runs one of mlc_llm's on its arguments, with a plan (None: dense); what was compiled for it."""


def _compile(argv: Sequence[str], plan: Plan | None) -> tuple[CompileReport, ...]:
    return (compile_with(argv, plan),)


COMMANDS: Mapping[str, Command] = {
    "compile": _compile,
    "chat": chat_with,
    "serve": serve_with,
    "package": package_with,
}
"""mlc_llm's subcommands that make or load a library."""


def run(argv: Sequence[str]) -> None:
    """Run mlc_llm on `argv`: without our flag as if it had been called itself, with it through our
    hooks.

    Raises `ShadowAttnError` for what the user can mend; what mlc_llm raises, or exits with, passes
    through.
    """
    arguments = take_apart(argv)
    if arguments.shadow_attn is None:
        import_mlc_llm()
        _hand_over(arguments.rest)
        return
    command = COMMANDS.get(arguments.subcommand or "")
    if command is None:
        raise ConfigError(
            f"{SHADOW_ATTN} is for {', '.join(COMMANDS)}, got "
            f"{arguments.subcommand or 'no subcommand'}"
        )
    plan = find_plan(arguments.shadow_attn)
    import_mlc_llm()
    _as_mlc_llm(arguments.rest)
    _report(arguments, command(arguments.rest[1:], plan))


def _hand_over(argv: Sequence[str]) -> None:
    """As `python -m mlc_llm` would run it."""
    sys.argv = ["mlc_llm", *argv]
    runpy.run_module("mlc_llm", run_name="__main__", alter_sys=True)


def _as_mlc_llm(argv: Sequence[str]) -> None:
    """What its own entry point does before it calls a subcommand."""
    from mlc_llm.support import logging  # not before import_mlc_llm

    sys.argv = ["mlc_llm", *argv]
    logging.enable_logging()


def _report(arguments: Arguments, reports: tuple[CompileReport, ...]) -> None:
    if arguments.report_file is not None:
        write_report(arguments.report_file, reports)
    elif arguments.report:
        print("\n\n".join(map(describe, reports)) or f"{REPORT}: nothing was compiled")
