"""The machines, and the harnesses of the kernels' tests turned towards them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from shadowattn_tvm.compiler.cross_link import cross_linker
from shadowattn_tvm.device.arm import image_path, require_emulator
from shadowattn_tvm.device.arm.tools import ENABLE
from shadowattn_tvm.device.remote import RemoteKernels
from shadowattn_tvm.device.rpc import RpcAddress, connect, rpc_address
from shadowattn_tvm.errors import ShadowAttnError
from tests.cli.conftest import run  # noqa: F401 - a fixture for the tests here
from tests.tir_kernels import decode_harness, dense_harness, shadow_harness, test_rotary
from tests.tir_kernels.baselines import test_static_int8_prefill
from tests.tir_kernels.linear import test_matmul
from tests.tir_kernels.pilot import test_kept_keys
from tests.tir_kernels.shadow import test_lists

from .machines import ANY, MATRIX, OLD, PHONE, TRIPLE, Machine, emulated, real, target_of

HARNESSES = (
    decode_harness,
    dense_harness,
    shadow_harness,
    test_kept_keys,
    test_lists,
    test_matmul,
    test_rotary,
    test_static_int8_prefill,
)
"""Each calls `build_kernels` in one place, and keeps what it built by target."""


def device_address(option: str) -> RpcAddress | None:
    """What `--device` names; None for the emulator."""
    kind, _, rest = option.partition(":")
    if kind == "rpc":
        return rpc_address(rest, None, None)
    if kind == "tracker":
        tracker, _, key = rest.rpartition(":")
        return rpc_address(None, tracker, key)
    if option != "emulated":
        raise pytest.UsageError(
            f"--device: expected emulated, rpc:HOST:PORT or tracker:HOST:PORT:KEY, got {option!r}"
        )
    return None


@pytest.fixture(scope="session")
def device(request: pytest.FixtureRequest) -> RpcAddress | None:
    """The real device to test on; None for the emulator. Skips where there is neither."""
    address = device_address(request.config.getoption("--device"))
    try:
        cross_linker(TRIPLE)
        if address is None:
            require_emulator()
    except ShadowAttnError as missing:
        pytest.skip(f"{missing}; `{ENABLE}` installs all of it")
    if address is None and not image_path().is_dir():
        pytest.skip(f"no image of an ARM machine: `{ENABLE}` makes it")
    return address


@pytest.fixture(scope="session")
def emulator_only(device: RpcAddress | None) -> None:
    """For tests that start, count or break a machine."""
    if device is not None:
        pytest.skip("only an emulated machine can be started, counted or broken: --device emulated")


@pytest.fixture(scope="session")
def machine_of(
    device: RpcAddress | None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[str], Machine]]:
    """Machines by CPU, one of each a session. A real one is one machine in several roles, with one
    connection: it has one client at a time."""
    made: dict[str, Machine] = {}
    shared = None
    if device is not None:
        shared = RemoteKernels(lambda: connect(device), shares_files=False)

    def machine(cpu: str) -> Machine:
        if cpu == MATRIX:
            newest = machine(ANY)
            if device is not None and "i8mm" not in newest.features():
                pytest.skip("this device has no INT8 matrix products")
            return replace(newest, target=target_of(MATRIX))
        if cpu not in made:
            folder = tmp_path_factory.mktemp(cpu)
            made[cpu] = emulated(cpu, folder) if shared is None else real(shared, cpu, folder)
        return made[cpu]

    yield machine
    for each in made.values():
        each.close()


def _turned(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> Machine:
    for harness in HARNESSES:
        monkeypatch.setattr(harness, "build_kernels", machine.build)
    return machine


@pytest.fixture(params=[OLD, PHONE])
def machine(
    request: pytest.FixtureRequest,
    machine_of: Callable[[str], Machine],
    monkeypatch: pytest.MonkeyPatch,
) -> Machine:
    """Plain NEON, then with dot products; the kernels' harnesses build for it and run on it."""
    return _turned(machine_of(request.param), monkeypatch)


@pytest.fixture(params=[OLD, PHONE, MATRIX])
def pilot_machine(
    request: pytest.FixtureRequest,
    machine_of: Callable[[str], Machine],
    monkeypatch: pytest.MonkeyPatch,
) -> Machine:
    """The same, then with INT8 matrix products: only the pilot has a use for them."""
    return _turned(machine_of(request.param), monkeypatch)


@pytest.fixture
def matrix(machine_of: Callable[[str], Machine], monkeypatch: pytest.MonkeyPatch) -> Machine:
    """INT8 matrix products only."""
    return _turned(machine_of(MATRIX), monkeypatch)


@pytest.fixture
def phone(machine_of: Callable[[str], Machine], monkeypatch: pytest.MonkeyPatch) -> Machine:
    """NEON with dot products only."""
    return _turned(machine_of(PHONE), monkeypatch)


@pytest.fixture
def any_arm64(machine_of: Callable[[str], Machine], monkeypatch: pytest.MonkeyPatch) -> Machine:
    """The newest CPU, and what `compile --device arm64` makes."""
    return _turned(machine_of(ANY), monkeypatch)
