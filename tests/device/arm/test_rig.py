"""Benchmarks and stage costs on a device: the host's code, and figures from over there.

What is measured is checked by the commands themselves, against the NumPy twins. Times of an
emulated device mean nothing; that there are some, and whose they are, does.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tvm

from shadowattn_tvm.bench import AttentionBench, DecodeBench, PipelineBench
from shadowattn_tvm.bench.device_rig import DEFAULT_DEVICE, open_device_rig
from shadowattn_tvm.compiler.targets import resolve_target
from shadowattn_tvm.device.arm import ArmEmulator, ArmSettings
from shadowattn_tvm.device.rpc import RpcAddress
from shadowattn_tvm.doctor import examine
from shadowattn_tvm.doctor.probe import Outcome
from shadowattn_tvm.errors import DeviceError
from shadowattn_tvm.pipeline import Shape, planned_launches
from shadowattn_tvm.plan import Plan, Sharing, head_order, load_plan, save_plan
from shadowattn_tvm.weights import ModelDirectory
from tests.cli.conftest import Run
from tests.plan.tiny_plan import shared_lists
from tir_kernels.features import NEON, NEON_I8MM, cpu_features

from .machines import ANY, OLD, PHONE, Machine

pytestmark = pytest.mark.arm


@pytest.fixture(scope="module")
def address(device: RpcAddress | None) -> Iterator[RpcAddress]:
    """A device with two threads in its pool."""
    if device is not None:
        yield device
        return
    with ArmEmulator(ArmSettings(PHONE, threads=2)) as emulator:
        yield emulator.start()


@pytest.fixture(scope="module")
def old(emulator_only: None) -> Iterator[ArmEmulator]:
    """One without dot products, and with one thread."""
    with ArmEmulator(ArmSettings(OLD)) as emulator:
        yield emulator


@pytest.fixture
def plan(tiny_plan: Plan, tmp_path: Path) -> Path:
    ratios = (0.1, 0.2, 0.3, 0.9, 0.25, 0.5)
    save_plan(shared_lists(tiny_plan, Sharing(query_block=8), ratios), tmp_path / "plan.json")
    return tmp_path / "plan.json"


def options(address: RpcAddress) -> tuple[str, ...]:
    place = f"{address.host}:{address.port}"
    return ("--rpc", place) if address.key is None else ("--tracker", place, "--key", address.key)


def test_stage_costs_of_a_device(
    run: Run, tiny_directory: ModelDirectory, plan: Path, address: RpcAddress, tmp_path: Path
) -> None:
    code, out, err = run(
        *("calibrate", tiny_directory.path, "--stage-costs", "--plan", plan, *options(address)),
        *("--context", 60, "--chunk-tokens", 12, "--rounds", 1, "-o", tmp_path / "out.json"),
    )
    assert (code, out.strip()) == (0, str(tmp_path / "out.json")), err
    costs = load_plan(tmp_path / "out.json").stage_costs
    assert costs is not None
    assert costs.machine.startswith("arm64 (dotprod")
    assert str(address) in costs.machine
    assert "cores" not in costs.machine
    planned = planned_launches(load_plan(plan), costs.model, Shape(queries=12, keys=60))
    assert load_plan(tmp_path / "out.json").head_order == head_order(planned)
    assert costs.model.pilot.launches[0].ms > 0


def test_attention_on_a_device(
    run: Run, tiny_directory: ModelDirectory, plan: Path, address: RpcAddress, tmp_path: Path
) -> None:
    code, out, err = run(
        *("bench", "attention", tiny_directory.path, "--plan", plan, *options(address)),
        *("--context", 40, "--chunk", 12, "--rounds", 1, "--json", tmp_path / "bench.json"),
    )
    assert code == 0, err
    assert "torch_sdpa: not timed, runs on this machine only" in out
    bench = AttentionBench.model_validate(json.loads((tmp_path / "bench.json").read_text()))
    assert [(row.contender, row.workers) for row in bench.rows] == [
        ("cg_full", 0),
        ("cg_sparse", 0),
        ("cg_block_sparse", 0),
        ("shadow", 0),
        ("shadow", 1),
        ("npu_full", 0),
        ("mlc_tir", 0),
    ]
    assert all(row.checked and row.median_ms > 0 for row in bench.rows)
    assert [each.contender for each in bench.skipped] == ["torch_sdpa"]
    assert bench.machine.physical_cores is None
    assert str(address) in bench.machine.processor


def test_pipeline_and_decode_on_a_device(
    run: Run, tiny_directory: ModelDirectory, plan: Path, address: RpcAddress, tmp_path: Path
) -> None:
    common = (tiny_directory.path, "--plan", plan, *options(address), "--context", 40)
    few = ("--rounds", 1, "--json", tmp_path / "bench.json")
    code, _, err = run("bench", "pipeline", *common, "--chunk", 12, *few)
    assert code == 0, err
    (row,) = PipelineBench.model_validate(json.loads((tmp_path / "bench.json").read_text())).rows
    assert row.checked
    assert 0 < max(row.pilot_ms, row.attend_ms) <= row.lower_bound_ms <= row.makespan_ms
    code, _, err = run("bench", "decode-attention", *common, *few)
    assert code == 0, err
    rows = DecodeBench.model_validate(json.loads((tmp_path / "bench.json").read_text())).rows
    assert [row.contender for row in rows] == ["dense_decode", "sparse_decode"]
    assert all(row.median_ms > 0 for row in rows)


def test_a_device_is_compiled_for_as_it_is(old: ArmEmulator) -> None:
    with open_device_rig(old.start(), None) as rig:
        assert rig.features == NEON
        assert "no extensions" in rig.machine().processor
        with pytest.raises(DeviceError, match=r"expected a device with 2 threads .*got 1: start"):
            rig.use_threads(2)
    with (
        pytest.raises(DeviceError, match="asks for dotprod, fullfp16, which the device lacks"),
        open_device_rig(old.start(), "arm64"),
    ):
        pass


def test_matrix_products_of_a_device_are_found(
    machine_of: Callable[[str], Machine], emulator_only: None
) -> None:
    has = machine_of(ANY).features()
    assert has == ("dotprod", "fullfp16", "i8mm")
    assert cpu_features(resolve_target(DEFAULT_DEVICE, ("neon", *has))) == NEON_I8MM


def test_code_for_another_cpu_is_told(
    run: Run, tiny_directory: ModelDirectory, plan: Path, old: ArmEmulator
) -> None:
    code, _, err = run(
        *("bench", "decode-attention", tiny_directory.path, "--plan", plan, "--context", 40),
        *(*options(old.start()), "--device", "host"),
    )
    assert code == 2
    assert "the device can't load what was compiled for it" in err


def lose_it(emulator: ArmEmulator) -> None:
    with open_device_rig(emulator.start(), None) as rig:
        values = tvm.runtime.tensor(np.zeros(4, np.float32), rig.device)
        os.killpg(emulator.pid, signal.SIGKILL)
        values.numpy()


def test_a_device_that_is_lost_is_reported(old: ArmEmulator) -> None:
    with pytest.raises(DeviceError, match="the device was lost"):
        lose_it(old)


def test_doctor_asks_a_device_what_it_can_do(address: RpcAddress, old: ArmEmulator) -> None:
    for each, has in ((address, "dotprod, fullfp16"), (old.start(), "none of our extensions")):
        report = examine(each, run=lambda code: Outcome(True, ""))
        (found,) = (finding for finding in report.findings if finding.name == "RPC device")
        assert (found.state, has in found.found) == ("ok", True), found.found
