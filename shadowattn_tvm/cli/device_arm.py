"""`shadowattn device arm`: an emulated 64-bit ARM machine behind TVM RPC."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..config.atomic import write_text_atomically
from ..errors import ConfigError
from .progress import console

if TYPE_CHECKING:  # the command line starts without what only some commands need
    from ..device.arm import ArmStatus

arm_app = typer.Typer(
    help="An emulated 64-bit ARM machine: an RPC server of TVM that anything of TVM's can use.",
    no_args_is_help=True,
)

JsonFile = Annotated[Path | None, typer.Option("--json", help="Result file to write.")]


@arm_app.command()
def make() -> None:
    """Make the machine's image, once: 85 MB of downloads. Prints where it is."""
    from ..device.arm import make_image

    print(make_image(_report))


@arm_app.command()
def start(
    cpu: Annotated[
        str, typer.Option(help="As QEMU names it: cortex-a76, cortex-a53, max, ...")
    ] = "cortex-a76",
    threads: Annotated[int, typer.Option(help="Of TVM's pool over there.", min=1)] = 1,
    tracker: Annotated[
        str | None, typer.Option(metavar="HOST:PORT", help="RPC tracker to register with.")
    ] = None,
    key: Annotated[str | None, typer.Option(help="The name there; with --tracker.")] = None,
    json_file: JsonFile = None,
) -> None:
    """Start the machine in the background, made first if need be. Prints its HOST:PORT."""
    from ..device.arm import ArmSettings, start_arm
    from ..device.rpc import rpc_address

    rpc_address(None, tracker, key)  # well-formed, and both or neither
    _print(start_arm(ArmSettings(cpu, threads, tracker, key or ""), _report), json_file)


@arm_app.command()
def status(json_file: JsonFile = None) -> None:
    """Where the machine's RPC server listens."""
    from ..device.arm import arm_status

    running = arm_status()
    if running is None:
        raise ConfigError("no emulated ARM machine is running: `shadowattn device arm start`")
    _print(running, json_file)


@arm_app.command()
def stop() -> None:
    """Stop the machine; nothing if none runs."""
    from ..device.arm import stop_arm

    stopped = stop_arm()
    console.print("  no machine was running" if stopped is None else "  stopped")


def _report(step: str) -> None:
    console.print(f"  {step}", highlight=False)


def _print(status: ArmStatus, json_file: Path | None) -> None:
    tracked = f", {status.key!r} of {status.tracker}" if status.tracker is not None else ""
    console.print(
        f"  {status.cpu}, {status.threads} threads, process {status.pid}{tracked}; "
        f"log {status.log}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    if json_file is not None:
        write_text_atomically(json_file, status.model_dump_json(indent=2) + "\n")
    print(f"{status.host}:{status.port}")
