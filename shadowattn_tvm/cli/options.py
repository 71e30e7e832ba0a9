"""Options several commands share."""

from __future__ import annotations

from collections.abc import Collection
from typing import Annotated

import typer

from ..errors import ConfigError
from ..plan import OFF
from ..plan import find_plan as load_shadow_attn

__all__ = ["OFF", "RpcKey", "RpcServer", "RpcTracker", "load_shadow_attn", "refuse_options"]

RpcServer = Annotated[
    str | None, typer.Option("--rpc", metavar="HOST:PORT", help="Run on this RPC server.")
]
RpcTracker = Annotated[
    str | None,
    typer.Option("--tracker", metavar="HOST:PORT", help="Run on a device of this RPC tracker."),
]
RpcKey = Annotated[str | None, typer.Option("--key", help="The device's key; with --tracker.")]


def refuse_options(context: typer.Context, refused: Collection[str], reason: str) -> None:
    """Raise `ConfigError` if any of the parameters named was given."""
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if parameter.name in refused and source is not None and source.name != "DEFAULT":
            raise ConfigError(f"{parameter.opts[0]} can't be given {reason}")
