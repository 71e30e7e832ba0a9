"""A machine that outlives the command that started it, for `shadowattn device arm`."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, PositiveInt

from ...config.atomic import write_text_atomically
from ...config.documents import read_json_object, validated
from ...config.paths import cache_dir
from ...errors import DeviceError
from .emulator import HOST, ArmSettings, end_group, launch, wait_until_ready
from .image import make_image


class ArmStatus(BaseModel):
    """A running machine, as `status` prints it.

    Attributes
    ----------
    pid : of QEMU.
    port : of its RPC server, on this machine.
    cpu, threads, tracker, key : as in `ArmSettings`.
    log : what the machine prints.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    schema_version: Literal[1] = 1
    pid: PositiveInt
    host: str = HOST
    port: PositiveInt
    cpu: str
    threads: PositiveInt
    tracker: str | None
    key: str
    log: str


def start_arm(
    settings: ArmSettings, on_step: Callable[[str], None] = lambda step: None
) -> ArmStatus:
    """Make the image if need be and start a machine. Raises `DeviceError`, among others if one is
    running already."""
    running = arm_status()
    if running is not None:
        raise DeviceError(
            f"an emulated ARM machine is running already: process {running.pid}, RPC server "
            f"{running.host}:{running.port}; end it with `shadowattn device arm stop`"
        )
    make_image(on_step)
    on_step("start the RPC server")
    process, log = launch(settings, leashed=False)
    try:
        address = wait_until_ready(process, log)
        status = ArmStatus(
            pid=process.pid,
            port=address.port,
            cpu=settings.cpu,
            threads=settings.threads,
            tracker=settings.tracker,
            key=settings.key,
            log=str(log),
        )
        write_text_atomically(_file(), status.model_dump_json(indent=2) + "\n")
    except BaseException:
        end_group(process.pid)
        raise
    return status


def arm_status() -> ArmStatus | None:
    """The machine that runs; None without one."""
    if not _file().is_file():
        return None
    document = read_json_object(_file(), DeviceError)
    status = validated(ArmStatus, document, str(_file()), DeviceError)
    return status if _is_ours(status.pid) else None


def stop_arm() -> ArmStatus | None:
    """Stop the machine: the one that was running, None without one."""
    status = arm_status()
    if status is not None:
        end_group(status.pid)
        Path(status.log).unlink(missing_ok=True)
    _file().unlink(missing_ok=True)
    return status


def _is_ours(pid: int) -> bool:
    """Whether the process is still the machine and not another with its number."""
    with suppress(OSError):
        command = Path(f"/proc/{pid}/cmdline").read_bytes()
        return b"guest_server.py" in command and os.getpgid(pid) == pid
    return False


def _file() -> Path:
    return cache_dir() / "devices" / "arm.json"
