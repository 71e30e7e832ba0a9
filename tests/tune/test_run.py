"""Real runs, of few and small tiles: here, and over RPC."""

from __future__ import annotations

import time
from collections.abc import Generator
from pathlib import Path

import pytest
import tvm
from tvm.rpc import connect_tracker
from tvm.rpc.server import Server
from tvm.s_tir import meta_schedule as ms

from shadowattn_tvm.compiler.tuning import tuned_kernels
from shadowattn_tvm.compiler.tuning_database import RECORD_FILE, read_database
from shadowattn_tvm.errors import ConfigError, OutputError
from shadowattn_tvm.tune import Rpc, TuneSettings, select_workloads, tune
from tests.tir_kernels.tuning.small_workloads import GEMM, LISTS, QUANTIZED_GEMM
from tir_kernels.features import cpu_features
from tir_kernels.spec import LinearSpec
from tir_kernels.tuning.definitions import definition
from tir_kernels.tuning.space import sizes_of
from tir_kernels.tuning.workloads import GemmWorkload

pytest.importorskip("cloudpickle", reason="the tune extra is missing")
tracker = pytest.importorskip("tvm.rpc.tracker", reason="the tune extra is missing")

KEY = "bench-device"
DEVICE_TIMEOUT_S = 60.0
FINAL_ROUNDS = 5


def settings(trials: int, rpc: Rpc | None = None) -> TuneSettings:
    return TuneSettings(trials=trials, rpc=rpc, repeats=2, min_repeat_ms=0)


@pytest.mark.slow
def test_a_run_leaves_a_database_that_compile_reads(
    tmp_path: Path, host_target: tvm.target.Target
) -> None:
    told: list[tuple[str, int, int]] = []
    (row,) = tune(
        [LISTS], host_target, tmp_path, settings(3), on_trial=lambda *each: told.append(each)
    )
    features = cpu_features(host_target)
    assert (row.kernel, row.measured, row.failed) == (LISTS.name, 3, 0)
    assert row.hand_chosen == sizes_of(LISTS, LISTS.tile(features))
    assert row.best_ms is not None
    assert row.hand_chosen_ms is not None
    assert row.best_ms <= row.hand_chosen_ms
    assert [name for name, _, _ in told] == [LISTS.name] * len(told)
    assert [done for _, done, _ in told[:-1]] == list(range(1, len(told)))
    assert told[-1][1] == told[-1][2]
    found = tuned_kernels((LISTS,), host_target, features, str(tmp_path))
    assert found.kernels == (LISTS.name,)
    assert [dict(tile.sizes) for tile in found.tiles] == [row.best][: len(found.tiles)]
    # MetaSchedule itself reads it, too
    assert found.source is not None
    database = ms.database.JSONDatabase(work_dir=str(found.source))
    assert database.has_workload(definition(LISTS))
    assert len(database) == 3 + 3 * FINAL_ROUNDS


@pytest.mark.slow
def test_an_interrupted_run_keeps_what_it_measured_and_another_adds_to_it(
    tmp_path: Path, host_target: tvm.target.Target
) -> None:
    def interrupt(kernel: str, done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tune([GEMM], host_target, tmp_path, settings(4), on_trial=interrupt)
    (folder,) = tmp_path.iterdir()
    kept = read_database(folder)
    assert kept is not None
    assert len(kept.records) == 2
    (row,) = tune([QUANTIZED_GEMM], host_target, tmp_path, settings(1))
    assert row.measured == 1
    both = read_database(folder)
    assert both is not None
    assert both.records[:2] == kept.records
    assert len(both.records) == 2 + 1 + FINAL_ROUNDS
    found = tuned_kernels(
        (GEMM, QUANTIZED_GEMM), host_target, cpu_features(host_target), str(tmp_path)
    )
    assert found.kernels == (GEMM.name, QUANTIZED_GEMM.name)


@pytest.fixture
def rpc() -> Generator[Rpc, None, None]:
    """A tracker and a device on this machine."""
    tracking = tracker.Tracker(host="127.0.0.1", port=9190, port_end=9290, silent=True)
    serving = Server(
        host="127.0.0.1",
        port=9300,
        port_end=9400,
        tracker_addr=("127.0.0.1", tracking.port),
        key=KEY,
        silent=True,
    )
    try:
        _wait_for_device(tracking.port)
        yield Rpc("127.0.0.1", tracking.port, KEY)
    finally:
        serving.terminate()
        tracking.terminate()


def _wait_for_device(port: int) -> None:
    """Until the device has told the tracker of itself."""
    session = connect_tracker("127.0.0.1", port)
    deadline_s = time.monotonic() + DEVICE_TIMEOUT_S
    while not any(each["key"] == f"server:{KEY}" for each in session.summary()["server_info"]):
        assert time.monotonic() < deadline_s, "the device never reached the tracker"
        time.sleep(0.2)
    session.close()


@pytest.mark.slow
def test_a_device_over_rpc(tmp_path: Path, rpc: Rpc, host_target: tvm.target.Target) -> None:
    (row,) = tune([LISTS], host_target, tmp_path, settings(2, rpc))
    assert (row.measured, row.failed, row.reason) == (2, 0, None)
    unknown = Rpc(rpc.host, rpc.port, "toaster")
    with pytest.raises(ConfigError, match="knows a device 'toaster'"):
        tune([LISTS], host_target, tmp_path, settings(1, unknown))


@pytest.mark.slow
def test_a_tile_that_can_not_be_built_is_counted(
    tmp_path: Path, host_target: tvm.target.Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("shadowattn_tvm.tune.trials.make_builder", _broken_builder)
    (row,) = tune([GEMM], host_target, tmp_path, settings(2))
    assert (row.measured, row.best, row.best_ms) == (0, None, None)
    assert row.failed == 2 + 1, "two trials, and the hand-chosen tile once more at the end"
    assert row.reason == "ValueError: the oven is cold"


def _broken_builder(workload: GemmWorkload) -> ms.builder.LocalBuilder:
    return ms.builder.LocalBuilder(max_workers=1, f_build=_fail)


def _fail(*_: object) -> None:
    raise ValueError("the oven is cold")


def test_nobody_listens(tmp_path: Path, host_target: tvm.target.Target) -> None:
    with pytest.raises(ConfigError, match=r"can't reach a tracker at 127\.0\.0\.1:1"):
        tune([LISTS], host_target, tmp_path, settings(1, Rpc("127.0.0.1", 1, KEY)))
    assert list(tmp_path.iterdir()) == []


def test_a_database_that_is_not_ours_is_left_alone(
    tmp_path: Path, host_target: tvm.target.Target
) -> None:
    from tests.tune.databases import some_tiles, write_database

    folder = write_database(tmp_path, GEMM, host_target, {some_tiles(GEMM, host_target)[0]: [1.0]})
    (folder / RECORD_FILE).write_text("spoilt\n")
    with pytest.raises(ConfigError, match="line 1"):
        tune([LISTS], host_target, tmp_path, settings(1))
    assert (folder / RECORD_FILE).read_text() == "spoilt\n"


def test_a_place_that_can_not_be_written_to(tmp_path: Path, host_target: tvm.target.Target) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="can't write to"):
        tune([LISTS], host_target, tmp_path / "file", settings(1))


def test_kinds_of_kernels() -> None:
    workloads = (GEMM, GemmWorkload(LinearSpec(8, 8), 4), LISTS)
    assert select_workloads(workloads, ["gemm"]) == workloads[:2]
    assert select_workloads(workloads, ["list_attention", "gemm"]) == workloads
    with pytest.raises(ConfigError, match="expected some of gemm, list_attention, got 'conv'"):
        select_workloads(workloads, ["gemm", "conv"])
    with pytest.raises(ConfigError, match="needs a plan whose queries share lists"):
        select_workloads(workloads[:2], ["list_attention"])
