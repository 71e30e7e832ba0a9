"""Addresses of devices, and what is said when there is none."""

from __future__ import annotations

import socket

import pytest

from shadowattn_tvm.device.rpc import RpcAddress, connect, rpc_address
from shadowattn_tvm.errors import ConfigError, DeviceError


def test_addresses() -> None:
    assert rpc_address(None, None, None) is None
    assert rpc_address("phone:9090", None, None) == RpcAddress("phone", 9090)
    assert rpc_address(None, "::1:9190", "a76") == RpcAddress("::1", 9190, "a76")


@pytest.mark.parametrize(
    ("server", "tracker", "key", "message"),
    [
        ("h:1", "h:2", "k", "--rpc, or --tracker and --key, got both"),
        (None, "h:2", None, "--tracker and --key together"),
        (None, None, "k", "--tracker and --key together"),
        ("h", None, None, "--rpc: expected HOST:PORT, got 'h'"),
        (None, "h:0", "k", "--tracker: expected HOST:PORT, got 'h:0'"),
        ("h:65536", None, None, "--rpc: expected HOST:PORT"),
        (":9090", None, None, "--rpc: expected HOST:PORT"),
    ],
)
def test_malformed_addresses(
    server: str | None, tracker: str | None, key: str | None, message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        rpc_address(server, tracker, key)


def test_nobody_listens() -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(DeviceError, match=rf"can't reach RPC server 127\.0\.0\.1:{port}.*refused"):
        connect(RpcAddress("127.0.0.1", port))
    with pytest.raises(DeviceError, match="rpc_tracker` running"):
        connect(RpcAddress("127.0.0.1", port, "phone"))
