"""The thread count: physical cores, counted from the system's topology, never over the user's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from shadowattn_tvm.runtime import threads


@pytest.mark.parametrize(
    ("cores", "expected"), [({0: 0, 1: 1}, 2), ({0: 0, 1: 0, 2: 1, 3: 1}, 2), ({0: 0, 2: 0}, 1)]
)
def test_siblings_of_one_core_count_once(
    cores: dict[int, int], expected: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for cpu, core in cores.items():
        folder = tmp_path / f"cpu{cpu}" / "topology"
        folder.mkdir(parents=True)
        (folder / "physical_package_id").write_text("0\n")
        (folder / "core_id").write_text(f"{core}\n")
    monkeypatch.setattr(threads, "_CPU_TOPOLOGY", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(cores), raising=False)
    assert threads.num_physical_cores() == expected


def test_an_unknown_topology_counts_every_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(threads, "_CPU_TOPOLOGY", tmp_path / "none")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 3, 5}, raising=False)
    assert threads.num_physical_cores() == 3


@pytest.mark.parametrize(("given", "expected"), [(None, threads.num_physical_cores()), ("1", 1)])
def test_tvm_takes_it_and_the_user_has_the_last_word(given: str | None, expected: int) -> None:
    environment = {k: v for k, v in os.environ.items() if k != threads.THREADS_VARIABLE}
    if given is not None:
        environment[threads.THREADS_VARIABLE] = given
    script = (
        "from shadowattn_tvm.runtime.threads import use_physical_cores; use_physical_cores()\n"
        "import tvm; print(tvm.get_global_func('runtime.NumThreads')())"
    )
    result = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True
    )
    assert int(result.stdout) == expected
