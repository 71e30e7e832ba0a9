"""Databases of tuned tiles: which tile wins, for whom, and what is refused."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tvm
from tvm import relax

from shadowattn_tvm.compiler import compile_library
from shadowattn_tvm.compiler.cache import library_key
from shadowattn_tvm.compiler.targets import resolve_device
from shadowattn_tvm.compiler.tuning import model_workloads, target_folder, tuned_kernels
from shadowattn_tvm.compiler.tuning_database import (
    RECORD_FILE,
    WORKLOAD_FILE,
    plain_target,
    read_database,
)
from shadowattn_tvm.config.paths import tuning_logs_dir
from shadowattn_tvm.errors import ConfigError
from shadowattn_tvm.plan import Plan
from shadowattn_tvm.runtime.session import Session
from shadowattn_tvm.weights import ModelDirectory
from tests.plan.tiny_plan import shared_lists
from tests.tir_kernels.tuning.small_workloads import GEMM, LISTS, WORKLOADS
from tests.tune.databases import some_tiles, write_database
from tir_kernels.features import AVX2, TunedTile, cpu_features
from tir_kernels.tuning.space import sizes_of
from tir_kernels.tuning.workloads import Workload

TARGET = tvm.target.Target({"kind": "llvm", "mcpu": "znver3", "mtriple": "x86_64-linux-gnu"})
OTHERS = (
    {"kind": "llvm", "mcpu": "znver4", "mtriple": "x86_64-linux-gnu"},
    {"kind": "llvm", "mcpu": "znver3", "mtriple": "x86_64-windows-msvc"},
    {"kind": "llvm", "mcpu": "znver3", "mtriple": "x86_64-linux-gnu", "mattr": ["-avx2"]},
)
"""Another CPU, another system, the same CPU without its vectors."""

HAND, OTHER, LAST = some_tiles(GEMM, TARGET)


def tuned_tile(workload: Workload, tile: Any) -> TunedTile:
    return TunedTile(workload.name, tuple(sizes_of(workload, tile).items()))


@pytest.mark.parametrize(
    ("times_s", "winner"),
    [
        ({HAND: [2.0], OTHER: [1.0], LAST: [3.0]}, OTHER),
        ({OTHER: [1.0]}, OTHER),  # the hand-chosen one wasn't measured
        ({HAND: [1.0], OTHER: [2.0]}, None),
        ({HAND: [1.0], OTHER: [0.99]}, None),  # less than counts
        ({HAND: [1.0, 9.0], OTHER: [9.0, 1.1]}, None),  # what else runs only adds
        ({HAND: [2.0, 2.0, 9.0], OTHER: [9.0, 9.0, 1.0]}, OTHER),
        ({HAND: [2.0] * 5, OTHER: [1.0] * 2}, None),  # measured too seldom to be compared
        ({HAND: [2.0] * 4, OTHER: [1.0] * 2}, OTHER),
    ],
)
def test_the_best_tile_wins(times_s: dict[Any, list[float]], winner: Any, tmp_path: Path) -> None:
    folder = write_database(tmp_path, GEMM, TARGET, times_s)
    found = tuned_kernels(WORKLOADS, TARGET, AVX2, str(tmp_path))
    assert found.source == folder
    assert found.kernels == (GEMM.name,)
    assert found.tiles == (() if winner is None else (tuned_tile(GEMM, winner),))
    assert found.describe().startswith(f"tuned: 1 kernel from {folder}")
    assert ("1 with the hand-chosen tile" in found.describe()) == (winner is None)


def test_all_measurements_of_a_tile_count(tmp_path: Path) -> None:
    write_database(tmp_path, GEMM, TARGET, {HAND: [2.0], OTHER: [1.0]})
    write_database(tmp_path, GEMM, TARGET, {HAND: [0.5]})
    assert tuned_kernels(WORKLOADS, TARGET, AVX2, str(tmp_path)).tiles == ()


def test_every_workload_of_a_database_is_found(tmp_path: Path) -> None:
    expected = []
    for workload in WORKLOADS:
        hand, other, _ = some_tiles(workload, TARGET)
        write_database(tmp_path, workload, TARGET, {hand: [2.0], other: [1.0]})
        expected.append(tuned_tile(workload, other))
    found = tuned_kernels(WORKLOADS, TARGET, AVX2, str(tmp_path))
    assert found.tiles == tuple(expected)
    assert found.describe().startswith("tuned: 3 kernels from ")


@pytest.mark.parametrize("other", OTHERS, ids=str)
def test_other_targets_keep_the_hand_chosen_tiles(other: dict[str, Any], tmp_path: Path) -> None:
    target = tvm.target.Target(other)
    write_database(tmp_path, GEMM, TARGET, {HAND: [2.0], OTHER: [1.0]})
    # in a folder of its own, and even with the records where its own would be
    for _ in range(2):
        found = tuned_kernels(WORKLOADS, target, cpu_features(target), str(tmp_path))
        assert found.source is None
        assert found.tiles == ()
        assert found.describe() == "tuned: no kernels, all tiles are hand-chosen"
        write_database(tmp_path, GEMM, target, {OTHER: [1.0]}, measured_on=TARGET)


def test_other_shapes_keep_the_hand_chosen_tiles(tmp_path: Path) -> None:
    write_database(tmp_path, GEMM, TARGET, {OTHER: [1.0]})
    assert tuned_kernels((LISTS,), TARGET, AVX2, str(tmp_path)).kernels == ()


def test_off_and_a_missing_folder(tmp_path: Path) -> None:
    write_database(tmp_path, GEMM, TARGET, {OTHER: [1.0]})
    assert tuned_kernels((GEMM,), TARGET, AVX2, "off").source is None
    assert tuned_kernels((GEMM,), TARGET, AVX2, "shipped").kernels == ()
    with pytest.raises(ConfigError, match=r"--tuning-logs: expected a folder .* got '.*nowhere'"):
        tuned_kernels((GEMM,), TARGET, AVX2, str(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    assert tuned_kernels((GEMM,), TARGET, AVX2, str(tmp_path / "empty")).source is None


def _with(key: Callable[[Any], Any]) -> Callable[[str], str]:
    """A change of the parsed record."""

    def changed(line: str) -> str:
        record = json.loads(line)
        return json.dumps(key(record) or record)

    return changed


def _decide(value: Any) -> Callable[[str], str]:
    def change(record: Any) -> None:
        record[1][0][1][0][1] = value

    return _with(change)


def _offer(value: Any) -> Callable[[str], str]:
    """Change what the first decision's candidates are."""

    def change(record: Any) -> None:
        instructions, decisions = record[1][0]
        instructions[1][2][0][decisions[0][1]] = value

    return _with(change)


def _rename(number: int, name: str) -> Callable[[str], str]:
    def change(record: Any) -> None:
        record[1][0][0][number][0] = name

    return _with(change)


def _run_s(value: Any) -> Callable[[str], str]:
    def change(record: Any) -> None:
        record[1][1] = value

    return _with(change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda line: line[: len(line) // 2], "Invalid JSON"),
        (lambda line: "{}", "not as expected"),
        (lambda line: '[0, "x"]', "not as expected"),
        (lambda line: "[" * 100_000, "Invalid JSON"),
        (_with(lambda record: [7, record[1]]), "expected the number of one of the 1 lines"),
        (_with(lambda record: [-1, record[1]]), "expected the number of one of the 1 lines"),
        (_decide(99), "expected a decision in 0..3, got 99"),
        (_decide(-1), "expected a decision in 0..3, got -1"),
        (_decide("0"), "expected a decision in 0..3, got '0'"),
        (_decide(None), "expected a decision in 0..3, got None"),
        (_offer(1000), "token_vectors: expected one of 1, 2, 3, 4, got 1000"),
        (_offer(-2), "token_vectors: expected one of 1, 2, 3, 4, got -2"),
        (_offer("2"), "expected a whole number as a size, got '2'"),
        (_offer(True), "expected a whole number as a size, got True"),
        (_rename(2, "Parallel"), "got the instruction 'Parallel'"),
        (_rename(1, "SamplePerfectTile"), "got the instruction 'SamplePerfectTile'"),
        (_run_s([]), "at least 1 item"),
        (_run_s(None), "valid array"),
        (_run_s([0.0]), "greater than 0"),
        (_run_s(["fast"]), "valid number"),
        (_run_s([float("nan")]), "finite number"),
    ],
)
def test_a_corrupt_record_is_named(
    change: Callable[[str], str], message: str, tmp_path: Path
) -> None:
    folder = write_database(tmp_path, GEMM, TARGET, {HAND: [2.0], OTHER: [1.0]})
    first, second = (folder / RECORD_FILE).read_text().splitlines()
    spoilt = change(second)
    assert spoilt != second
    (folder / RECORD_FILE).write_text(f"{first}\n{spoilt}\n")
    with pytest.raises(ConfigError, match=message) as error:
        tuned_kernels((GEMM,), TARGET, AVX2, str(tmp_path))
    assert f"{folder / RECORD_FILE}, line 2" in str(error.value)


@pytest.mark.parametrize("name", [WORKLOAD_FILE, RECORD_FILE])
def test_half_a_database_is_refused(name: str, tmp_path: Path) -> None:
    folder = write_database(tmp_path, GEMM, TARGET, {OTHER: [1.0]})
    (folder / name).unlink()
    with pytest.raises(ConfigError, match=f"can't read {folder / name}"):
        read_database(folder)


@pytest.mark.parametrize("content", [b"[1, 2]\n", b"\xff\xfe\n", b"[]\n", b'["1"]\n'])
def test_a_corrupt_workload_is_named(content: bytes, tmp_path: Path) -> None:
    folder = write_database(tmp_path, GEMM, TARGET, {OTHER: [1.0]})
    (folder / WORKLOAD_FILE).write_bytes(content)
    with pytest.raises(ConfigError, match=WORKLOAD_FILE):
        read_database(folder)


def test_a_definition_that_is_another_is_no_match(tmp_path: Path) -> None:
    folder = write_database(tmp_path, GEMM, TARGET, {OTHER: [1.0]})
    hash_, definition = json.loads((folder / WORKLOAD_FILE).read_text())
    (folder / WORKLOAD_FILE).write_text(json.dumps([hash_[::-1], definition]) + "\n")
    assert tuned_kernels((GEMM,), TARGET, AVX2, str(tmp_path)).kernels == ()


def test_folders_are_called_after_targets() -> None:
    assert target_folder(TARGET) == "x86_64-znver3"
    assert target_folder(tvm.target.Target("llvm")).replace("/", "") == target_folder(
        tvm.target.Target("llvm")
    )
    odd = {"kind": "llvm", "mcpu": "../../etc", "mtriple": "x86_64-linux-gnu"}
    assert "/" not in target_folder(tvm.target.Target(odd))


def test_a_target_is_compared_as_a_whole() -> None:
    exported = plain_target(TARGET)
    assert json.loads(json.dumps(exported)) == exported
    assert all(plain_target(tvm.target.Target(other)) != exported for other in OTHERS)


def test_what_is_worth_tuning(tiny_directory: ModelDirectory, tiny_plan: Plan) -> None:
    architecture = tiny_directory.architecture
    dense = model_workloads(architecture, "q4f32_1", None)
    assert [workload.name for workload in dense] == [
        "gemm_q4f32_1_160x96",
        "gemm_q4f32_1_96x96",
        "gemm_q4f32_1_128x96",
        "gemm_q4f32_1_96x64",
    ]
    assert model_workloads(architecture, "q4f32_1", tiny_plan) == dense, "a list for each query"
    (*_, lists) = model_workloads(architecture, "q4f32_1", shared_lists(tiny_plan))
    assert lists.name == "list_attention_16_8"


def test_shipped_databases_are_sound() -> None:
    """Every folder's files are readable, every record is for the folder's target, and no workload
    says where it was made."""
    folders = [path for path in tuning_logs_dir().iterdir() if path.is_dir()]
    for folder in folders:
        database = read_database(folder)
        assert database is not None
        assert (folder / "README.md").is_file()
        for line in (folder / WORKLOAD_FILE).read_text().splitlines():
            assert b".py" not in base64.b64decode(json.loads(line)[1])
        for record in database.records:
            assert target_folder(tvm.target.Target(dict(record.target))) == folder.name


def test_compile_takes_the_best_tiles_and_says_so(
    tiny_directory: ModelDirectory, tiny_plan: Plan, tiny_library: Path, tmp_path: Path
) -> None:
    device = resolve_device("host")
    workloads = model_workloads(tiny_directory.architecture, "q0f32", shared_lists(tiny_plan))
    for workload in workloads:
        hand, _, last = some_tiles(workload, device.target)
        write_database(tmp_path, workload, device.target, {hand: [2.0], last: [1.0]})
    tuned = compile_library(
        tiny_directory, None, output=tmp_path / "tuned.so", tuning_logs=str(tmp_path)
    )
    assert len(tuned.tuned.tiles) == len(tuned.tuned.kernels) == 4, "no lists in a dense library"
    library = relax.VirtualMachine(tvm.runtime.load_module(str(tuned.path)), tvm.cpu()).module
    said = json.loads(library["_metadata"]())["tuned_tiles"]
    assert said == {tile.kernel: dict(tile.sizes) for tile in tuned.tuned.tiles}
    tokens = np.random.default_rng(3).integers(0, 256, 150).tolist()
    np.testing.assert_allclose(
        Session(tiny_directory, tuned.path).prefill(tokens),
        Session(tiny_directory, tiny_library).prefill(tokens),
        rtol=1e-4,
        atol=1e-4,
    )
    assert tuned.path.read_bytes() != tiny_library.read_bytes()
    again = compile_library(tiny_directory, None, tuning_logs=str(tmp_path))
    assert again.from_cache
    assert again.tuned == tuned.tuned
    off = compile_library(tiny_directory, None, output=tmp_path / "off.so", tuning_logs="off")
    assert off.from_cache
    assert off.path.read_bytes() == tiny_library.read_bytes()


def test_the_key_follows_the_tiles(tiny_directory: ModelDirectory) -> None:
    device = resolve_device("host")
    tiles = [(), (tuned_tile(GEMM, OTHER),), (tuned_tile(GEMM, LAST),), (tuned_tile(GEMM, OTHER),)]
    keys = [
        library_key(tiny_directory, tiny_directory.architecture, None, device, tuned=tuned)
        for tuned in tiles
    ]
    assert len(set(keys)) == 3
    assert keys[1] == keys[3]
