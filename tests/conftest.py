"""Fixtures every suite shares, and the rule that a gate may forbid skipping."""

from __future__ import annotations

import gc
import os
from collections import Counter
from collections.abc import Callable, Generator
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import tvm
from tvm.target.codegen import llvm_get_system_cpu, llvm_get_system_triple

from shadowattn_tvm.compiler import compile_library
from shadowattn_tvm.config import cache_dir
from shadowattn_tvm.errors import WeightsError
from shadowattn_tvm.plan import Plan, plan_hash
from shadowattn_tvm.runtime.threads import use_physical_cores
from shadowattn_tvm.weights import ModelDirectory, convert_weight, fetch
from tests.calibrate.tiny_model import tiny_config, write_tiny_model
from tests.plan.tiny_plan import make_plan
from tir_kernels.quick_parsing import quicken_parsing

use_physical_cores()  # before any test runs a kernel
quicken_parsing()  # before any test makes a kernel
# torch's idle threads otherwise spin on the cores that TVM's are waiting for; set before it loads
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

MAY_SKIP_ANYWHERE = "mlc"
"""Marker of tests against packages that can't be installed from a public index."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--forbid-skips",
        action="store_true",
        help=f"a skipped test fails, unless it is marked {MAY_SKIP_ANYWHERE!r}",
    )
    parser.addoption(
        "--device",
        default="emulated",
        help="where tests marked 'arm' run: emulated, rpc:HOST:PORT or tracker:HOST:PORT:KEY",
    )


ONE_WORKER = ("model", "arm")
"""Markers whose tests one worker runs: each library of the real model is made once, each ARM
machine started once."""


@pytest.hookimpl(tryfirst=True)  # pytest-xdist reads the groups in the same hook
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With several workers a file's tests stay together, and so do those in `ONE_WORKER`. Groups
    with many slow tests come first, so that none is left to a worker that ends up alone."""
    groups = {item: _group(item) for item in items}
    slow = Counter(groups[item] for item in items if item.get_closest_marker("slow") is not None)
    for item in items:
        item.add_marker(pytest.mark.xdist_group(groups[item]))
    if config.getoption("loadgroup", default=False):
        items.sort(key=lambda item: -slow[groups[item]])


def _group(item: pytest.Item) -> str:
    shared = [name for name in ONE_WORKER if item.get_closest_marker(name) is not None]
    return shared[0] if shared else item.nodeid.split("::")[0]


def pytest_collection_finish(session: pytest.Session) -> None:
    """What is there before the first test stays: the garbage collector needn't look at it again."""
    grouped = session.config.getoption("loadgroup", default=False)
    if grouped and not all("@" in item.nodeid for item in session.items):
        raise RuntimeError("pytest-xdist sees no groups with this pytest: see pyproject.toml")
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    forbidden = item.config.getoption("--forbid-skips")
    expected_failure = hasattr(report, "wasxfail")
    may_skip = expected_failure or item.get_closest_marker(MAY_SKIP_ANYWHERE) is not None
    if report.skipped and forbidden and not may_skip:
        report.outcome = "failed"
        report.longrepr = f"skipped where every test should run: {report.longrepr}"
    return report


@pytest.fixture(scope="session")
def host_target() -> tvm.target.Target:
    """The machine the tests run on, with every instruction it has."""
    return tvm.target.Target(
        {"kind": "llvm", "mcpu": llvm_get_system_cpu(), "mtriple": llvm_get_system_triple()}
    )


@pytest.fixture(scope="session")
def tiny_directory(tmp_path_factory: pytest.TempPathFactory) -> ModelDirectory:
    """Random weights, 256 tokens of context, chunks of 16, a byte vocabulary."""
    return write_tiny_model(tmp_path_factory.mktemp("tiny"), tiny_config())


@pytest.fixture(scope="session")
def tiny_plan(tiny_directory: ModelDirectory) -> Plan:
    """A plan for `tiny_directory`: first layer dense, a quarter of the past kept elsewhere."""
    return make_plan(tiny_directory)


@pytest.fixture(scope="session")
def tiny_library(tiny_directory: ModelDirectory, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The dense library of `tiny_directory` for this machine."""
    return compile_library(
        tiny_directory, None, output=tmp_path_factory.mktemp("library") / "tiny.so"
    ).path


@pytest.fixture(scope="session")
def tiny_shadow_library(
    tiny_directory: ModelDirectory, tiny_plan: Plan, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The library of `tiny_directory` with `tiny_plan` compiled in."""
    return compile_library(
        tiny_directory, tiny_plan, output=tmp_path_factory.mktemp("library") / "shadow.so"
    ).path


@pytest.fixture(scope="session")
def tiny_texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of four texts of 700 characters."""
    folder = tmp_path_factory.mktemp("texts")
    words = ("the", "of", "a", "key", "past", "chunk", "query", "head", "layer", "dense")
    for number in range(4):
        rng = np.random.default_rng(number)
        text = " ".join(rng.choice(words, 400))[:700]
        (folder / f"text-{number}.txt").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def smollm2_gguf() -> Path:
    """SmolLM2-135M-Instruct as published, fetched once into the user's cache."""
    try:
        return fetch("smollm2-135m", cache_dir())
    except WeightsError as error:
        pytest.skip(f"the real model can't be fetched: {error}")


@pytest.fixture(scope="session")
def smollm2_dir(
    smollm2_gguf: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], ModelDirectory]:
    """SmolLM2-135M-Instruct converted, by quantization; each conversion is made once a session."""

    @cache
    def converted(quantization: str) -> ModelDirectory:
        folder = tmp_path_factory.mktemp("smollm2") / quantization
        return convert_weight(smollm2_gguf, quantization, folder)

    return converted


@pytest.fixture(scope="session")
def smollm2_library(
    smollm2_dir: Callable[[str], ModelDirectory], tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str, Plan | None], Path]:
    """SmolLM2-135M-Instruct compiled for this machine, by quantization and plan (None: dense);
    chunks of up to 1,024 tokens. Each library is made once a session."""
    folder = tmp_path_factory.mktemp("libraries")
    made: dict[tuple[str, str | None], Path] = {}

    def compiled(quantization: str, plan: Plan | None) -> Path:
        key = (quantization, None if plan is None else plan_hash(plan))
        if key not in made:
            made[key] = compile_library(
                smollm2_dir(quantization),
                plan,
                overrides="prefill_chunk_size=1024",
                output=folder / f"{len(made)}.so",
            ).path
        return made[key]

    return compiled


@pytest.fixture(scope="session")
def smollm2_dense_library(
    smollm2_library: Callable[[str, Plan | None], Path],
) -> Callable[[str], Path]:
    """The lossless baseline by quantization: dense attention."""
    return lambda quantization: smollm2_library(quantization, None)
