"""A device behind a tracker: found by its key, sent files to, measured on by MetaSchedule."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from tvm.rpc import connect_tracker

from shadowattn_tvm.compiler.targets import resolve_target
from shadowattn_tvm.device.arm import ArmEmulator, ArmSettings
from shadowattn_tvm.device.remote import RemoteKernels
from shadowattn_tvm.device.rpc import RpcAddress, connect
from shadowattn_tvm.errors import DeviceError
from shadowattn_tvm.tune import Rpc, TuneSettings, tune
from tests.tir_kernels.tuning.small_workloads import LISTS

from .machines import Machine
from .test_recovery import poke, poked

tracker = pytest.importorskip("tvm.rpc.tracker", reason="the tune extra is missing")

pytestmark = [pytest.mark.arm, pytest.mark.usefixtures("emulator_only")]

KEY = "emulated-phone"
DEVICE_TIMEOUT_S = 60


@pytest.fixture(scope="module")
def address() -> Iterator[RpcAddress]:
    tracking = tracker.Tracker("127.0.0.1", 9490, 9590, silent=True)
    place = f"127.0.0.1:{tracking.port}"
    try:
        with ArmEmulator(ArmSettings(tracker=place, key=KEY)):
            _wait_for_device(tracking.port)
            yield RpcAddress("127.0.0.1", tracking.port, KEY)
    finally:
        tracking.terminate()


def _wait_for_device(port: int) -> None:
    session = connect_tracker("127.0.0.1", port)
    deadline_s = time.monotonic() + DEVICE_TIMEOUT_S
    while not any(each["key"] == f"server:{KEY}" for each in session.summary()["server_info"]):
        assert time.monotonic() < deadline_s, "the device never reached the tracker"
        time.sleep(0.1)
    session.close()


def test_files_are_sent_to_a_device_that_has_its_own(address: RpcAddress, tmp_path: Path) -> None:
    kernels = RemoteKernels(lambda: connect(address), shares_files=False)
    machine = Machine(resolve_target("arm64"), kernels, tmp_path, None)
    library = machine.build({"poke": poke()})
    assert poked(library, 2) == [0, 0, 7, 0]
    machine.close()


def test_an_unknown_key_is_told_with_the_known_ones(address: RpcAddress) -> None:
    with pytest.raises(DeviceError, match=rf"knows no device 'toaster'; it knows {KEY}"):
        connect(RpcAddress(address.host, address.port, "toaster"))


@pytest.mark.slow
def test_tiles_are_measured_on_the_device(address: RpcAddress, tmp_path: Path) -> None:
    rpc = Rpc(address.host, address.port, KEY)
    settings = TuneSettings(trials=1, rpc=rpc, repeats=1, min_repeat_ms=0)
    (row,) = tune([LISTS], resolve_target("arm64"), tmp_path, settings)
    assert (row.measured, row.failed, row.reason) == (1, 0, None)
    assert row.best_ms is not None
    assert np.isfinite(row.best_ms)
