"""`shadowattn mlc_llm`: MLC-LLM's own commands, with shadowAttn."""

from __future__ import annotations

from typing import Annotated

import typer

PASS_THROUGH = {
    "allow_interspersed_args": False,  # all that follows the first word is taken as it stands
    "ignore_unknown_options": True,
    "help_option_names": [],
}


def mlc_llm(
    arguments: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="SUBCOMMAND [ARGS]... [--shadow-attn PLAN|off [--shadow-attn-report[=FILE]]]"
        ),
    ] = None,
) -> None:
    """Run mlc_llm (compile, chat, serve, package, ...): its flags, and --shadow-attn PLAN|off."""
    from ..mlc import run

    run(arguments or [])
