"""What goes wrong on a device is said, and costs no more than the call it happened in."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable

import numpy as np
import pytest
import tvm
from tvm import tirx
from tvm.script import tirx as T  # noqa: N812 - TVMScript's own spelling

from shadowattn_tvm.errors import DeviceError
from tests.tir_kernels.pilot import test_scores
from tests.tir_kernels.shadow_harness import filled
from tir_kernels.features import NEON_DOTPROD
from tir_kernels.pilot.scores import pilot_scores

from .machines import OLD, PHONE, Library, Machine, target_of

pytestmark = [pytest.mark.arm, pytest.mark.usefixtures("emulator_only")]

NOWHERE = 1 << 44
"""Elements beyond any memory."""


def poke() -> tirx.PrimFunc:
    """values[i] = 7"""

    @T.prim_func(s_tir=True)
    def store(var_values: T.handle, i: T.int64) -> None:
        values = T.match_buffer(var_values, (4,), "int32")
        values[i] = 7

    return store


@pytest.fixture
def stores(phone: Machine) -> Library:
    return phone.build({"poke": poke()})


def poked(library: Library, index: int) -> list[int]:
    values = tvm.runtime.tensor(np.zeros(4, np.int32))
    library["poke"](values, index)
    return [int(value) for value in values.numpy()]


def test_a_crashed_kernel_is_reported_and_the_next_call_works(stores: Library) -> None:
    assert poked(stores, 2) == [0, 0, 7, 0]
    emulator = stores.machine.emulator
    before = emulator.pid
    with pytest.raises(DeviceError, match=r"the device was lost during a call.*crashed"):
        poked(stores, NOWHERE)
    assert poked(stores, 1) == [0, 7, 0, 0]
    assert emulator.pid == before, "the machine itself survives"


def test_a_lost_machine_is_reported_and_started_again(stores: Library) -> None:
    assert poked(stores, 0) == [7, 0, 0, 0]
    emulator = stores.machine.emulator
    os.killpg(emulator.pid, signal.SIGKILL)
    with pytest.raises(DeviceError, match="the device was lost"):
        poked(stores, 0)
    assert poked(stores, 3) == [0, 0, 0, 7]


def test_a_kernels_own_complaint_is_passed_on(stores: Library) -> None:
    with pytest.raises(Exception, match=r"shape|dtype|Mismatch|ndim") as complaint:
        stores["poke"](tvm.runtime.tensor(np.zeros(5, np.int32)), 0)
    assert not isinstance(complaint.value, DeviceError)
    assert poked(stores, 0) == [7, 0, 0, 0]


def test_an_old_cpu_has_no_dot_products(machine_of: Callable[[str], Machine]) -> None:
    """The emulated CPUs really differ: what is compiled for one may be illegal on another."""
    old = machine_of(OLD)
    spec = test_scores.GEOMETRIES[1]
    kernel = {"pilot_scores": pilot_scores(spec, NEON_DOTPROD)}
    library = old.build(kernel, target_of(PHONE))
    q, scales, chosen = ((8, 3, 64), "float32"), ((3,), "float32"), ((1,), "float32")
    packed, scores = ((8, 16, 16), "int8"), ((8, 32), "int32")
    arguments = [filled(*like, 0) for like in (q, scales, packed, scores, chosen)]
    with pytest.raises(DeviceError, match="crashed"):
        library["pilot_scores"](*arguments, 0)
