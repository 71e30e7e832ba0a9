"""Where a device is, behind TVM RPC, and a connection to it.

A device is named by the address of its RPC server, or by that of a tracker and the key it was
registered with, as MLC and TVM do.
"""

from __future__ import annotations

import contextlib
import socket
from dataclasses import dataclass

from tvm import rpc

from ..errors import ConfigError, DeviceError

_MAX_PORT = 65535
_CONNECT_TIMEOUT_S = 10


@dataclass(frozen=True)
class RpcAddress:
    """An RPC server, or with `key` a tracker that knows servers of that key."""

    host: str
    port: int
    key: str | None = None

    def __str__(self) -> str:
        place = f"{self.host}:{self.port}"
        return f"RPC server {place}" if self.key is None else f"{self.key!r} of tracker {place}"


def rpc_address(server: str | None, tracker: str | None, key: str | None) -> RpcAddress | None:
    """What `--rpc`, `--tracker` and `--key` name; None without any of them.

    Raises `ConfigError` for a malformed address, half of a tracker's two options, or both ways.
    """
    if server is not None and (tracker is not None or key is not None):
        raise ConfigError("expected --rpc, or --tracker and --key, got both")
    if (tracker is None) != (key is None):
        raise ConfigError("expected --tracker and --key together, got one of them")
    if server is not None:
        return RpcAddress(*_host_and_port("--rpc", server))
    if tracker is None:
        return None
    return RpcAddress(*_host_and_port("--tracker", tracker), key)


def connect(address: RpcAddress) -> rpc.RPCSession:
    """A session on the device. Raises `DeviceError` if there is none; waits where another session
    is using it, and lasts until its last tensor or function is gone."""
    try:
        # TVM would try for a minute
        socket.create_connection((address.host, address.port), _CONNECT_TIMEOUT_S).close()
    except OSError as error:
        program = "rpc_server" if address.key is None else "rpc_tracker"
        raise DeviceError(
            f"can't reach {address}: {error.strerror or error}; is `python -m tvm.exec.{program}` "
            "running there?"
        ) from None
    try:
        if address.key is None:
            return rpc.connect(address.host, address.port)
        tracker = rpc.connect_tracker(address.host, address.port)
        known = tracker.summary()["queue_info"]
        if address.key not in known:
            raise DeviceError(
                f"the tracker at {address.host}:{address.port} knows no device {address.key!r}; it "
                f"knows {', '.join(sorted(known)) or 'none'}"
            )
        return tracker.request(address.key, max_retry=1)
    except DeviceError:
        raise
    except Exception as error:  # TVM raises whatever its sockets did
        raise DeviceError(f"can't open a session on {address}: {last_words(error)}") from None


def disconnect(session: rpc.RPCSession) -> None:
    """End a session, whoever still holds tensors or functions of it: a device has one at a time.
    Those are of no use afterwards."""
    with contextlib.suppress(Exception):  # the device may be gone already
        session._sess["CloseRPCConnection"]()


def last_words(error: BaseException) -> str:
    """The line of one of TVM's errors that says what happened."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__


def _host_and_port(option: str, text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":")
    if not (host and port.isascii() and port.isdigit() and 0 < int(port) <= _MAX_PORT):
        raise ConfigError(f"{option}: expected HOST:PORT, got {text!r}")
    return host, int(port)
