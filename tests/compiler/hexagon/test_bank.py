"""A whole bank of the tiny model: on disk, executed, altered, and in C."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import tvm
from tvm_ffi.registry import remove_global_func

from shadowattn_tvm.calibrate import with_strides
from shadowattn_tvm.compiler import compile_library
from shadowattn_tvm.compiler.hexagon import compile_bank
from shadowattn_tvm.compiler.hexagon.tools import COMPILER, LINKER
from shadowattn_tvm.compiler.kernel_parameters import shadow_spec
from shadowattn_tvm.device.hexagon import EmulatedBank
from shadowattn_tvm.errors import CompileError, ConfigError, DeviceError, LibraryError, PlanError
from shadowattn_tvm.graph import LoadedBank, load_bank
from shadowattn_tvm.plan import Plan, Sharing
from shadowattn_tvm.runtime.session import Session
from shadowattn_tvm.weights import ModelDirectory
from tests.hexagon import needs_hexagon
from tests.plan.tiny_plan import one_bucket, shared_lists
from tir_kernels.pilot.requantize import Requantizer
from tir_kernels.reference.pilot import pilot_scores
from tir_kernels.reference.pooling import importance
from tir_kernels.reference.requantize import requantize
from tir_kernels.reference.top_k import top_k
from tir_kernels.spec import keep_count

pytestmark = needs_hexagon

SCORE_MAX = 127


@pytest.fixture(scope="module")
def plan(tiny_plan: Plan) -> Plan:
    """Lists of 8 queries of the 3 heads of a group; all of these vote, or every 2nd."""
    plain = shared_lists(tiny_plan, Sharing(gqa_group=True, query_block=8))
    return with_strides(plain, np.array([[1, 1, 1, 2, 2, 2]] * plain.model.num_layers))


@pytest.fixture(scope="module")
def folder(
    tiny_directory: ModelDirectory, plan: Plan, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    path = tmp_path_factory.mktemp("banks") / "bank"
    compile_bank(tiny_directory, plan, device="hexagon-v66", output=path)
    return path


@pytest.fixture(scope="module")
def emulated(folder: Path, plan: Plan) -> Iterator[EmulatedBank]:
    with EmulatedBank(load_bank(folder, plan)) as bank:
        yield bank


def launch(
    bank: LoadedBank,
    rng: np.random.Generator,
    pairs: np.ndarray,
    rows: int,
    keys: int,
    layer: int = 1,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Queries, keys and heads of the units and heads that `pairs` (U, G, 2) has buckets of."""
    units, group, _ = pairs.shape
    manifest = bank.manifest
    tables = {(b.q_bucket, b.k_bucket): b.scales for b in manifest.buckets}
    heads = np.empty((units, group, 6), np.int32)
    for unit, h in np.ndindex(units, group):
        head = (unit * group + h) % manifest.num_q_heads
        pair = tuple(pairs[unit, h].tolist())
        heads[unit, h] = head, *pair, *tables[pair][layer * manifest.num_q_heads + head]
    dim = manifest.head_dim
    queries = rng.integers(-127, 128, (units, group, rows, dim)).astype(np.int8)
    return queries, rng.integers(-127, 128, (units, keys, dim)).astype(np.int8), heads


def twin(queries: np.ndarray, keys: np.ndarray, heads: np.ndarray, block: int) -> np.ndarray:
    """(U, lists, N), by NumPy."""
    units = []
    for q, k8, rows in zip(queries, keys, heads.tolist(), strict=True):
        scores = [
            requantize(pilot_scores(q8, k8), Requantizer(shift, multiplier), SCORE_MAX)
            for q8, (*_, multiplier, shift, _) in zip(q, rows, strict=True)
        ]
        steps = [row[-1] for row in rows]
        firsts = range(0, queries.shape[2], block)
        units.append([importance([s[i : i + block] for s in scores], steps) for i in firsts])
    return np.array(units)


def test_every_bucket_and_fused_count_equals_the_twin(folder: Path, emulated: EmulatedBank) -> None:
    bank = load_bank(folder)
    rng = np.random.default_rng(0)
    for buckets in bank.manifest.buckets:
        pair = (buckets.q_bucket, buckets.k_bucket)
        for units, rows, keys in [(1, 16, 240), (2, 9, 77), (1, 33, 129), (3, 8, 5)]:
            pairs = np.broadcast_to(np.array(pair), (units, 3, 2))
            launched = launch(bank, rng, pairs, rows, keys, layer=rows % 3)
            block = 8 if rows % 2 else 4  # 4 of 8 queries vote
            got = emulated.pilot(rows % 3, *launched, block, SCORE_MAX)
            np.testing.assert_array_equal(got, twin(*launched, block))
    assert emulated.packets > 0


def test_a_launch_of_another_plan_is_refused(folder: Path, emulated: EmulatedBank) -> None:
    bank = load_bank(folder)
    pairs = np.zeros((1, 3, 2), np.int32)
    queries, keys, heads = launch(bank, np.random.default_rng(1), pairs, 8, 20)
    altered = heads.copy()
    altered[0, 2, 3] += 1
    for arguments in [
        (1, queries, keys, altered, 8, SCORE_MAX),
        (1, queries, keys, heads, 16, SCORE_MAX),
        (1, queries, keys, heads, 8, 255),
        (77, queries, keys, heads, 8, SCORE_MAX),
    ]:
        with pytest.raises(LibraryError, match="one plan"):
            emulated.pilot(*arguments)
    _, many, heads = launch(bank, np.random.default_rng(1), pairs, 8, 513)
    with pytest.raises(LibraryError, match="holds 512 keys"):
        emulated.pilot(1, queries, many, heads, 8, SCORE_MAX)
    with pytest.raises(LibraryError, match="with --select-on-npu"):
        emulated.select(1, queries, keys, heads, 8, SCORE_MAX)
    emulated.pilot(1, queries, keys, heads, 8, SCORE_MAX)  # and it still runs


def test_heads_of_a_group_in_different_buckets_vote_one_by_one(
    folder: Path, emulated: EmulatedBank
) -> None:
    pairs = np.array([[[0, 1], [2, 1], [1, 1]]])
    launched = launch(load_bank(folder), np.random.default_rng(2), pairs, 13, 99)
    before = emulated.launches
    got = emulated.pilot(1, *launched, 8, SCORE_MAX)
    assert emulated.launches == before + 3
    with pytest.raises(LibraryError, match="different buckets"):
        emulated.select(1, *launched, 8, SCORE_MAX)
    np.testing.assert_array_equal(got, twin(*launched, 8))


def test_a_bank_that_selects_gives_the_twins_lists(
    tiny_directory: ModelDirectory, plan: Plan, tmp_path: Path
) -> None:
    few = one_bucket(plan)
    compile_bank(
        tiny_directory,
        few,
        device="hexagon-v66",
        output=tmp_path / "bank",
        select_on_npu=True,
    )
    bank = load_bank(tmp_path / "bank", few)
    spec = shadow_spec(few, tiny_directory.architecture)
    rng = np.random.default_rng(4)
    with EmulatedBank(bank) as selecting:
        for units, rows, keys in [(1, 16, 240), (2, 9, 77), (1, 33, 129), (3, 8, 5)]:
            layer = 1 + rows % 2  # the first is dense
            launched = launch(bank, rng, np.zeros((units, 3, 2), int), rows, keys, layer)
            got = selecting.select(layer, *launched, 8, SCORE_MAX)
            votes = twin(*launched, 8)
            for unit, head in enumerate(launched[2][:, 0, 0].tolist()):
                k = keep_count(keys, spec.heads[layer][head].keep_ratio_q16, spec.k_min)
                want = [top_k(row, np.ones(keys, np.bool_), k) for row in votes[unit]]
                assert [row.tolist() for row in got[unit]] == [row.tolist() for row in want]
        with pytest.raises(LibraryError, match="without --select-on-npu"):
            selecting.pilot(layer, *launched, 8, SCORE_MAX)
        # heads one by one: their votes have yet to be added up
        alone = launch(bank, rng, np.zeros((1, 1, 2), int), 13, 99)
        np.testing.assert_array_equal(selecting.pilot(1, *alone, 8, SCORE_MAX), twin(*alone, 8))


@pytest.fixture
def as_the_process_pilot() -> Iterator[Callable[[EmulatedBank], None]]:
    """Register a bank as the process's pilot until the test ends."""
    name = pytest.importorskip("tir_kernels.shadow.npu_pilot").NPU_PILOT

    yield lambda bank: tvm.register_global_func(name, bank, override=True)
    remove_global_func(name)


def answer(session: Session, prompt: tuple[int, ...]) -> tuple[list[int], np.ndarray]:
    """Greedy tokens, and the logits of every step."""
    logits, tokens = [session.prefill(prompt)], []
    for _ in range(4):
        tokens.append(int(logits[-1].argmax()))
        logits.append(session.decode(tokens[-1]))
    return tokens, np.stack(logits)


def test_a_whole_model_answers_with_its_pilot_on_the_emulated_dsp(
    tiny_directory: ModelDirectory,
    plan: Plan,
    emulated: EmulatedBank,
    as_the_process_pilot: Callable[[EmulatedBank], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    library = compile_library(tiny_directory, plan, device="host-npu").path
    prompt = tuple(int(t) for t in np.random.default_rng(3).integers(0, 256, 60))
    tokens, logits = answer(Session(tiny_directory, library), prompt)
    before = emulated.launches
    as_the_process_pilot(emulated)
    got_tokens, got_logits = answer(Session(tiny_directory, library), prompt)
    assert emulated.launches > before
    assert got_tokens == tokens
    np.testing.assert_array_equal(got_logits, logits)
    # a bank of another plan fails the prefill, by name, and the next one works
    other = emulated.manifest.model_copy(update={"score_bits": emulated.manifest.score_bits + 1})
    with monkeypatch.context() as patched:
        patched.setattr(emulated, "manifest", other)
        # an error that passes through a library comes out as one of TVM's kinds
        with pytest.raises(RuntimeError, match="compiled from one plan"):
            Session(tiny_directory, library).prefill(prompt)
    np.testing.assert_array_equal(Session(tiny_directory, library).prefill(prompt), logits[0])


def test_without_an_emulator_a_bank_says_what_to_install(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bank = load_bank(folder)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(DeviceError, match="apt-get install qemu-user"):
        EmulatedBank(bank)


def test_graphs_are_as_small_as_the_paper_says(folder: Path) -> None:
    manifest = load_bank(folder).manifest
    sizes = [graph.code_bytes for graph in manifest.graphs]
    assert min(sizes) > 1_000
    assert max(sizes) < 100_000


def test_the_header_compiles_and_its_table_is_complete(folder: Path, tmp_path: Path) -> None:
    manifest = load_bank(folder).manifest
    source = tmp_path / "app.c"
    source.write_text(
        '#define SHADOWATTN_PILOT_TABLE\n#include "shadowattn_pilot.h"\n'
        "int keys(int i) { return shadowattn_pilot_entries[i].keys; }\n"
    )
    flags = "--target=hexagon-unknown-none-elf -mv66 -fPIC -ffreestanding -Wall -Werror"
    command = [COMPILER, *flags.split(), f"-I{folder}", "-c", source, "-o", tmp_path / "app.o"]
    subprocess.run(command, check=True)
    # the table finds every graph in the shared object
    link = [LINKER, "-m", "hexagonelf", "-shared", "--no-undefined", tmp_path / "app.o"]
    subprocess.run([*link, folder / manifest.library.name, "-o", tmp_path / "app.so"], check=True)
    assert manifest.plan_hash in (folder / "shadowattn_pilot.h").read_text()
    assert "interface shadowattn_pilot" in (folder / "shadowattn_pilot.idl").read_text()


def altered(folder: Path, place: Path, **changes: object) -> Path:
    """A copy of a bank whose manifest says something else."""
    shutil.copytree(folder, place)
    manifest = json.loads((place / "manifest.json").read_text())
    (place / "manifest.json").write_text(json.dumps(manifest | changes))
    return place


def test_what_is_no_bank_of_this_plan_is_refused(folder: Path, plan: Plan, tmp_path: Path) -> None:
    other = plan.model_copy(update={"k_min": 9})
    with pytest.raises(LibraryError, match="another plan"):
        load_bank(folder, other)
    with pytest.raises(LibraryError, match="no bank at"):
        load_bank(tmp_path)
    with pytest.raises(LibraryError, match="surprise"):
        load_bank(altered(folder, tmp_path / "unknown", surprise=1))
    with pytest.raises(LibraryError, match="numbered from 0"):
        load_bank(altered(folder, tmp_path / "empty", graphs=[]))
    truncated = altered(folder, tmp_path / "truncated")
    manifest = truncated / "manifest.json"
    manifest.write_bytes(manifest.read_bytes()[:-100])
    with pytest.raises(LibraryError, match="expected JSON"):
        load_bank(truncated)
    broken = altered(folder, tmp_path / "broken")
    graph = next(broken.glob("*.o"))
    content = bytearray(graph.read_bytes())
    content[len(content) // 2] ^= 1
    graph.write_bytes(content)
    with pytest.raises(LibraryError, match="SHA-256"):
        load_bank(broken)
    graph.write_bytes(content[:-1])
    with pytest.raises(LibraryError, match="bytes"):
        load_bank(broken)
    graph.unlink()
    with pytest.raises(LibraryError, match="can't read"):
        load_bank(broken)
    with pytest.raises(LibraryError, match="hexagon-v66"):
        EmulatedBank(load_bank(altered(folder, tmp_path / "v75", architecture="v75")))


def test_what_cannot_be_compiled_is_refused_and_leaves_nothing(
    tiny_directory: ModelDirectory,
    plan: Plan,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    output = tmp_path / "bank"

    def refused(error: type[Exception], message: str, **changes: object) -> None:
        arguments = {"plan": plan, "device": "hexagon-v75", "output": output} | changes
        with pytest.raises(error, match=message):
            compile_bank(tiny_directory, **arguments)
        assert list(tmp_path.iterdir()) == []

    refused(CompileError, "expected a plan", plan=None)
    refused(ConfigError, "hexagon-v66", device="hexagon-v1")
    refused(ConfigError, "KEY=VALUE", overrides="keys=7")
    model = plan.model.model_copy(update={"fingerprint": "f" * 64})
    refused(PlanError, "another model", plan=plan.model_copy(update={"model": model}))
    monkeypatch.setenv("PATH", "")
    refused(DeviceError, "apt-get install lld-19")


def test_plans_without_shared_lists_have_graphs_of_scores(
    tiny_directory: ModelDirectory, tiny_plan: Plan, tmp_path: Path
) -> None:
    compile_bank(tiny_directory, tiny_plan, device="hexagon-v73", output=tmp_path / "bank")
    bank = load_bank(tmp_path / "bank", tiny_plan)
    assert {graph.result_dtype for graph in bank.manifest.graphs} == {"int32"}
    assert bank.manifest.buckets == ()
    with pytest.raises(LibraryError, match="hexagon-v66"):
        EmulatedBank(bank)
