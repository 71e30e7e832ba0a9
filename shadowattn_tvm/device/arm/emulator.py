"""One emulated ARM machine: an RPC server of TVM, compiled for aarch64, in QEMU's user mode.

QEMU executes the instructions of the CPU that is asked for, and none beyond: code for another ends
in an illegal instruction, as on the real one.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tvm import rpc

from ...errors import DeviceError
from ..rpc import RpcAddress, connect
from .counts import Counter, InstructionCounts
from .image import guest_environment, guest_python, image_path
from .tools import ENABLE, require_emulator

HOST = "127.0.0.1"
FIRST_PORT = 9190
"""Clear of the 9090 to 9189 of TVM's own servers; the next free one is taken."""

_START_TIMEOUT_S = 180
_RECOVERY_TIMEOUT_S = 10
_POLL_S = 0.05


@dataclass(frozen=True)
class ArmSettings:
    """What machine.

    Attributes
    ----------
    cpu : as QEMU names it; `cortex-a76` is a big core of a phone of 2019 (dot products, half
        floats), `cortex-a53` one without either, `max` has all that QEMU knows.
    threads : of TVM's pool.
    tracker, key : an RPC tracker (HOST:PORT) to register with, and the name there.
    """

    cpu: str = "cortex-a76"
    threads: int = 1
    tracker: str | None = None
    key: str = ""


class ArmEmulator:
    """A machine that runs as long as this object, or this process, does.

    Parameters
    ----------
    settings : what machine.
    counted : where given, instructions of libraries in this folder are counted (see `counts`).

    A context manager. Every method raises `DeviceError`.
    """

    def __init__(self, settings: ArmSettings, *, counted: Path | None = None) -> None:
        self.settings = settings
        self._counted = counted
        self._counter: Counter | None = None
        self._process: subprocess.Popen[bytes] | None = None
        self._log: Path | None = None
        self._address: RpcAddress | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int:
        """Of QEMU."""
        assert self._process is not None, "not started"
        return self._process.pid

    def start(self) -> RpcAddress:
        """Start the machine unless it runs; where its server listens."""
        if self.running and self._address is not None:
            return self._address
        self.stop()
        plugin = []
        if self._counted is not None:
            self._counter = Counter(self._counted)
            plugin = self._counter.options()
        self._process, self._log = launch(self.settings, *plugin, leashed=True)
        self._address = wait_until_ready(self._process, self._log)
        return self._address

    def connect(self) -> rpc.RPCSession:
        """A session; a machine that is gone is started again."""
        deadline = time.monotonic() + _RECOVERY_TIMEOUT_S
        while True:
            address = self.start()
            try:
                return connect(address)
            except DeviceError:  # between a crash of a kernel and the server's listening again
                if time.monotonic() > deadline:
                    raise
            time.sleep(_POLL_S)

    def instruction_counts(self) -> InstructionCounts:
        """Of the counted libraries, since the start."""
        assert self._counter is not None, "nothing is counted"
        return self._counter.read()

    def stop(self) -> None:
        """Stop the machine; nothing if it doesn't run."""
        if self._process is not None:
            end_group(self._process.pid)
            self._process.wait()
            if self._process.stdin is not None:
                self._process.stdin.close()
        if self._log is not None:
            self._log.unlink(missing_ok=True)
        if self._counter is not None:
            self._counter.close()
        self._process, self._log, self._address, self._counter = None, None, None, None


def launch(
    settings: ArmSettings, *options: str, leashed: bool
) -> tuple[subprocess.Popen[bytes], Path]:
    """Start QEMU with its `options`: the process and its log. A leashed machine ends with this
    process. Raises `DeviceError` if the image or the emulator is missing."""
    require_emulator()
    image = image_path()
    if not image.is_dir():
        raise DeviceError(
            f"no image of an ARM machine at {image}: make it with `{ENABLE}` or "
            "`shadowattn device arm start`"
        )
    handle, log = tempfile.mkstemp(prefix="shadowattn-arm-", suffix=".log")
    server = Path(__file__).with_name("guest_server.py")
    command = [
        *guest_python(image, settings.cpu, *options),
        *(str(server), "--host", HOST, "--port", str(FIRST_PORT)),
        *(("--tracker", settings.tracker) if settings.tracker is not None else ()),
        *("--key", settings.key),
        *(("--leashed",) if leashed else ()),
    ]
    with os.fdopen(handle, "wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE if leashed else subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=guest_environment(image, settings.threads),
            start_new_session=True,
        )
    return process, Path(log)


def wait_until_ready(process: subprocess.Popen[bytes], log: Path) -> RpcAddress:
    """Where the server listens. Raises `DeviceError` with the machine's last words if it ends
    first, or takes too long; it is stopped then."""
    deadline = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline:
        said = log.read_text(encoding="utf-8", errors="replace")
        if ready := re.search(r"^READY (\d+)$", said, re.MULTILINE):
            return RpcAddress(HOST, int(ready.group(1)))
        if process.poll() is not None:
            words = [line for line in said.splitlines() if line.strip()]
            raise DeviceError(
                f"the emulated ARM machine didn't start: {words[-1] if words else 'no word'}"
            )
        time.sleep(_POLL_S)
    end_group(process.pid)
    raise DeviceError(f"the emulated ARM machine didn't start within {_START_TIMEOUT_S} s")


def end_group(pid: int) -> None:
    """End a machine and the children that serve its clients."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)
