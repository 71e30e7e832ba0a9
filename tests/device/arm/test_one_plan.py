"""One plan, an artifact for every target: its pilots choose the same keys everywhere.

The command line makes the artifacts. Each target's pilot then runs on the same random queries and
keys: the host's, an emulated ARM's, an emulated Hexagon's from the bank, and Adreno's through
OpenCL. They are integers: what they must agree with, to the bit, is the NumPy twin.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import tvm

from shadowattn_tvm.cli import main
from shadowattn_tvm.compiler.kernel_parameters import shadow_spec
from shadowattn_tvm.device.hexagon import EmulatedBank
from shadowattn_tvm.device.opencl.program import compile_opencl
from shadowattn_tvm.graph import LoadedBank, load_bank
from shadowattn_tvm.plan import Plan, Sharing, save_plan
from shadowattn_tvm.runtime.machine import RemoteMachine
from shadowattn_tvm.runtime.session import Session
from shadowattn_tvm.transform.attach_adreno_attention import adreno_kernels
from shadowattn_tvm.weights import ModelDirectory
from tests.archives import members, require_aarch64, require_opencl
from tests.hexagon import MISSING
from tests.plan.tiny_plan import one_bucket, shared_lists
from tests.tir_kernels.adreno import test_shadow_prefill as adreno
from tests.tir_kernels.adreno.conftest import POCL, open_queue
from tests.tir_kernels.dense_harness import PagedBatch, indptr
from tests.tir_kernels.shadow.test_lists import pages_of
from tests.tir_kernels.shadow_harness import filled, tensor
from tir_kernels.adreno import shadow_paged_prefill
from tir_kernels.build import build_kernels
from tir_kernels.features import cpu_features
from tir_kernels.pilot.quantize import bucket_scales
from tir_kernels.reference import shadow_prefill as twin
from tir_kernels.reference.pilot import choose_bucket, quantize
from tir_kernels.reference.top_k import top_k
from tir_kernels.shadow.lists import shadow_lists
from tir_kernels.spec import ShadowSpec, keep_count

from .machines import MATRIX, PHONE, Machine

LAYER = 1  # the first is dense
QUERIES, KEYS, BLOCK = 21, 203, 8
PROMPT = [int(i) for i in np.random.default_rng(1).integers(0, 256, 41)]


@pytest.fixture(scope="module")
def plan(tiny_plan: Plan) -> Plan:
    """Groups share lists of blocks; a bank of one pair of buckets is made in seconds."""
    return one_bucket(shared_lists(tiny_plan, Sharing(gqa_group=True, query_block=BLOCK)))


@pytest.fixture(scope="module")
def artifact(
    tiny_directory: ModelDirectory, plan: Plan, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, str], Path]:
    """What `shadowattn compile --device` makes of the plan, by device and name of a file."""
    folder = tmp_path_factory.mktemp("artifacts")
    save_plan(plan, folder / "plan.json")

    def compiled(device: str, name: str) -> Path:
        command = ["compile", tiny_directory.path, "--plan", folder / "plan.json"]
        with pytest.raises(SystemExit) as ended:
            main([str(word) for word in [*command, "--device", device, "-o", folder / name]])
        assert not ended.value.code
        return folder / name

    return compiled


@dataclass(frozen=True)
class Inputs:
    """The same for every target: q (m, Hq, D), k and v (n, Hkv, D), and the twin's lists by head
    and query."""

    spec: ShadowSpec
    q: np.ndarray
    k: np.ndarray
    v: np.ndarray
    lists: list[list[np.ndarray]]


@pytest.fixture(scope="module")
def inputs(plan: Plan, tiny_directory: ModelDirectory) -> Inputs:
    spec = shadow_spec(plan, tiny_directory.architecture)
    geometry, rng = spec.attention, np.random.default_rng(0)
    q = rng.standard_normal((QUERIES, geometry.num_q_heads, geometry.head_dim), np.float32)
    k, v = (
        rng.standard_normal((KEYS, geometry.num_kv_heads, geometry.head_dim), np.float32)
        for _ in range(2)
    )
    lists = twin.select(spec, LAYER, q, k)
    assert len({tuple(head[0]) for head in lists}) == geometry.num_kv_heads, "groups differ"
    return Inputs(spec, q, k, v, lists)


def check_lists(library: Any, inputs: Inputs) -> None:
    """A CPU's kernel chooses the twin's keys."""
    num_heads = inputs.spec.attention.num_q_heads
    lists = filled((QUERIES, num_heads, KEYS), "int32", -77)
    counts = filled((QUERIES, num_heads), "int32", -77)
    pages = tensor(pages_of(inputs.spec.attention, inputs.k))
    library["lists"](tensor(inputs.q), pages, lists, counts, LAYER, KEYS)
    for head, i in np.ndindex(num_heads, QUERIES):
        got = lists.numpy()[i, head, : counts.numpy()[i, head]]
        np.testing.assert_array_equal(got, inputs.lists[head][i])


def test_host(
    artifact: Callable[[str, str], Path],
    inputs: Inputs,
    tiny_directory: ModelDirectory,
    host_target: tvm.target.Target,
) -> None:
    session = Session(tiny_directory, artifact("host", "host.so"))
    assert np.isfinite(session.prefill(PROMPT)).all()
    kernel = shadow_lists(inputs.spec, cpu_features(host_target))
    check_lists(build_kernels({"lists": kernel}, host_target), inputs)


@pytest.fixture(scope="module")
def host_logits(
    artifact: Callable[[str, str], Path], tiny_directory: ModelDirectory
) -> npt.NDArray[Any]:
    return Session(tiny_directory, artifact("host", "here.so")).prefill(PROMPT)


@pytest.mark.arm
@pytest.mark.parametrize(("name", "cpu"), [("arm64", PHONE), ("arm64-i8mm", MATRIX)])
def test_arm(
    name: str,
    cpu: str,
    artifact: Callable[[str, str], Path],
    inputs: Inputs,
    host_logits: npt.NDArray[Any],
    tiny_directory: ModelDirectory,
    machine_of: Callable[[str], Machine],
) -> None:
    machine = machine_of(cpu)
    remote = RemoteMachine(machine.kernels.session, shares_files=machine.shares_files)
    library = artifact(name, f"{name}.so")
    there = Session(tiny_directory, library, machine=remote).prefill(PROMPT)
    np.testing.assert_allclose(there, host_logits, rtol=0, atol=1e-4)
    kernel = shadow_lists(inputs.spec, cpu_features(machine.target))
    check_lists(machine.build({"lists": kernel}), inputs)


def launch(inputs: Inputs, bank: LoadedBank) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Queries, keys and heads as the NPU's pilot takes them."""
    spec, group = inputs.spec, inputs.spec.attention.group_size
    (buckets,) = bank.manifest.buckets
    queries, keys, heads = [], [], []
    for head, parameters in enumerate(spec.heads[LAYER]):
        scales = []
        for rows, center in [
            (inputs.q[:, head], parameters.q_scale),
            (inputs.k[:, head // group], parameters.k_scale),
        ]:
            place = choose_bucket(rows, center, spec.bucket_sigma, spec.buckets_per_axis)
            scales.append(bucket_scales(center, spec.bucket_sigma, spec.buckets_per_axis)[place])
        queries.append(quantize(inputs.q[:, head], np.float32(scales[0])))
        keys.append(quantize(inputs.k[:, head // group], np.float32(scales[1])))
        constants = buckets.scales[LAYER * len(spec.heads[LAYER]) + head]
        heads.append([head, 0, 0, *constants])
    units = spec.num_list_owners
    return (
        np.stack(queries).reshape(units, group, QUERIES, -1),
        np.stack(keys[::group]),
        np.array(heads, np.int32).reshape(units, group, -1),
    )


@pytest.mark.hexagon
@pytest.mark.skipif(bool(MISSING), reason=f"`make hexagon-device` installs {', '.join(MISSING)}")
def test_hexagon(artifact: Callable[[str, str], Path], inputs: Inputs, plan: Plan) -> None:
    bank = load_bank(artifact("hexagon-v66", "bank"), plan)
    spec, everything = inputs.spec, np.ones(KEYS, np.bool_)
    keep = keep_count(KEYS, spec.heads[LAYER][0].keep_ratio_q16, spec.k_min)
    with EmulatedBank(bank) as pilot:
        votes = pilot.pilot(LAYER, *launch(inputs, bank), BLOCK, spec.pilot.score_max)
    for head, i in np.ndindex(spec.attention.num_q_heads, QUERIES):
        row = votes[head // spec.attention.group_size, i // BLOCK]
        np.testing.assert_array_equal(top_k(row, everything, keep), inputs.lists[head][i])


@pytest.mark.opencl
def test_adreno(artifact: Callable[[str, str], Path], inputs: Inputs) -> None:
    """The archive's kernel is the one that runs here. Values of different keys are unrelated: one
    wrong key shows in the output."""
    objects = members(artifact("android:adreno", "adreno.tar"))
    require_aarch64(objects)
    kernels = adreno_kernels(inputs.spec.attention, inputs.spec)
    require_opencl(b"".join(objects), kernels.values())
    pages = pages_of(inputs.spec.attention, inputs.k)
    values = pages_of(inputs.spec.attention, inputs.v)
    pages[:, 1] = values[:, 0]
    size = inputs.spec.attention.page_size
    batch = PagedBatch(
        pages,
        indptr([len(pages)]),
        np.arange(len(pages), dtype=np.int32),
        np.array([(KEYS - 1) % size + 1], np.int32),
    )
    queue = open_queue(POCL)
    kernel = queue.load(compile_opencl(shadow_paged_prefill(inputs.spec), "adreno_one_plan"))
    adreno.check(kernel, inputs.spec, LAYER, inputs.q, indptr([QUERIES]), batch)
