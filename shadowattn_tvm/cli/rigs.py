"""Where benchmarks run, by their options: this machine, or a device behind RPC."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import ConfigError

if TYPE_CHECKING:  # the command line starts without what only some commands need
    from ..bench import Rig

DeviceName = Annotated[
    str | None,
    typer.Option(
        "--device",
        help="With --rpc or --tracker: what to compile for; by default 64-bit ARM with all that "
        "the device has.",
    ),
]


@contextmanager
def chosen_rig(
    rpc: str | None, tracker: str | None, key: str | None, device: str | None
) -> Iterator[Rig]:
    """This machine without `rpc` or `tracker`. Raises `ConfigError` for options that don't go
    together, and like `open_device_rig`."""
    from ..bench import HERE
    from ..bench.device_rig import open_device_rig
    from ..device.rpc import rpc_address

    address = rpc_address(rpc, tracker, key)
    if address is not None:
        with open_device_rig(address, device) as rig:
            yield rig
        return
    if device not in (None, "host"):
        raise ConfigError(
            f"--device {device}: expected the device to run on by --rpc, or --tracker and --key"
        )
    yield HERE
