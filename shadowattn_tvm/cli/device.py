"""`shadowattn device`: emulated devices that stand in for the ones nobody has at hand."""

from __future__ import annotations

import typer

from .device_arm import arm_app

device_app = typer.Typer(help="Emulated devices: start, stop, look.", no_args_is_help=True)
device_app.add_typer(arm_app, name="arm")
