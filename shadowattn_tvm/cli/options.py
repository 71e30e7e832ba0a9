"""Options several commands share."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Annotated

import typer

from ..config.paths import configs_dir
from ..errors import ConfigError, PlanError
from ..plan import Plan, load_plan

OFF = "off"

RpcServer = Annotated[
    str | None, typer.Option("--rpc", metavar="HOST:PORT", help="Run on this RPC server.")
]
RpcTracker = Annotated[
    str | None,
    typer.Option("--tracker", metavar="HOST:PORT", help="Run on a device of this RPC tracker."),
]
RpcKey = Annotated[str | None, typer.Option("--key", help="The device's key; with --tracker.")]


def load_shadow_attn(value: str) -> Plan | None:
    """What `--shadow-attn` and `--plan` name: a file, a shipped plan, or `off` (None).
    Raises `PlanError` naming the shipped plans."""
    if value == OFF:
        return None
    if Path(value).suffix == ".json" or Path(value).exists():
        return load_plan(Path(value))
    folder = configs_dir() / "plans"
    shipped = sorted(path.stem for path in folder.glob("*.json"))
    if value not in shipped:
        raise PlanError(
            f"no plan {value!r}: expected a .json file, one of the shipped plans "
            f"({', '.join(shipped)}), or '{OFF}'"
        )
    return load_plan(folder / f"{value}.json")


def refuse_options(context: typer.Context, refused: Collection[str], reason: str) -> None:
    """Raise `ConfigError` if any of the parameters named was given."""
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if parameter.name in refused and source is not None and source.name != "DEFAULT":
            raise ConfigError(f"{parameter.opts[0]} can't be given {reason}")
