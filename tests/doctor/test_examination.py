"""The whole examination, with whatever may be missing missing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from shadowattn_tvm.device.rpc import RpcAddress
from shadowattn_tvm.doctor import Finding, Report, examine, save_report
from shadowattn_tvm.doctor.probe import Outcome

POCL = "Portable Computing Language: pthread-cpu; Oclgrind: Oclgrind Simulator"


def all_work(code: str) -> Outcome:
    return Outcome(True, POCL if "pyopencl" in code else "fine")


def by_name(report: Report) -> dict[str, Finding]:
    return {finding.name: finding for finding in report.findings}


def test_everything_is_looked_at() -> None:
    seen: list[tuple[int, int]] = []
    report = examine(run=all_work, on_finding=lambda *at: seen.append(at))
    found = by_name(report)
    assert len(found) == len(report.findings), "names are unique"
    for name in ("apache-tvm", "CPU", "C compiler"):
        assert (found[name].state, found[name].required) == ("ok", True)
    for name in ("emulated ARM machine", "emulated Hexagon", "PoCL", "mlc_llm", "torch"):
        assert not found[name].required
    assert "commit" in found["mlc_llm"].found
    assert seen[-1][0] == seen[-1][1] == len(seen)
    sections = [finding.section for finding in report.findings]
    assert sections == sorted(
        sections, key=["compiler", "devices", "MLC-LLM", "optional packages"].index
    )
    assert not report.failing


def test_without_programs_each_is_named_with_its_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    for name in ("CC", "CXX", "TVM_NDK_CC"):
        monkeypatch.delenv(name, raising=False)
    report = examine(run=all_work)
    found = by_name(report)
    assert [finding.name for finding in report.failing] == ["C compiler"]
    for name, install in {
        "linker for arm64": "make arm-device",
        "emulated ARM machine": "make arm-device",
        "linker for Hexagon": "make hexagon-device",
        "emulated Hexagon": "make hexagon-device",
        "C compiler": "apt-get install gcc libc6-dev",
    }.items():
        assert (found[name].state, found[name].install) == ("missing", install)
    assert "TVM_NDK_CC" in found["Android NDK"].found


def test_without_an_image_the_emulator_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SHADOWATTN_CACHE", str(tmp_path / "cache"))
    program = tmp_path / "qemu-aarch64"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert "no image" in by_name(examine(run=all_work))["emulated ARM machine"].found


def test_without_tvm_nothing_else_is_tried() -> None:
    tried: list[str] = []

    def no_tvm(code: str) -> Outcome:
        tried.append(code)
        return Outcome(False, "ImportError: libtvm.so") if "tvm" in code else Outcome(True, "")

    report = examine(RpcAddress("127.0.0.1", 1), run=no_tvm)
    assert "apache-tvm" in [finding.name for finding in report.failing]
    assert {finding.section for finding in report.findings} == {"compiler", "optional packages"}
    assert not any("cpu_features" in code for code in tried)


@pytest.mark.parametrize(
    ("outcome", "states"),
    [
        (Outcome(True, POCL), ("ok", "ok", "ok")),
        (Outcome(True, "NVIDIA CUDA: a GPU"), ("ok", "missing", "missing")),
        (Outcome(False, "LogicError"), ("broken", "missing", "missing")),
    ],
    ids=["both", "others", "broken"],
)
def test_opencl_platforms(outcome: Outcome, states: tuple[str, ...]) -> None:
    pytest.importorskip("pyopencl", reason="`make opencl-device` installs it")
    found = by_name(examine(run=lambda code: outcome if "pyopencl" in code else Outcome(True, "")))
    assert tuple(found[name].state for name in ("pyopencl", "PoCL", "Oclgrind")) == states


def test_a_broken_mlc_llm_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SHADOWATTN_MLC_LLM_SOURCE", "/nowhere")

    def broken(code: str) -> Outcome:
        return Outcome("mlc_llm" not in code, "ConfigError: expected a checkout")

    finding = by_name(examine(run=broken))["mlc_llm"]
    assert (finding.state, finding.fails) == ("broken", False)
    assert finding.found.startswith("ConfigError: expected a checkout; tested: mlc_llm")


def test_a_device_that_does_not_answer_fails(tmp_path: Path) -> None:
    report = examine(RpcAddress("127.0.0.1", 1), run=all_work)
    assert [finding.name for finding in report.failing] == ["RPC device"]
    assert "can't reach RPC server 127.0.0.1:1" in report.failing[0].found
    save_report(report, tmp_path / "report.json")
    document = json.loads((tmp_path / "report.json").read_text())
    assert Report.model_validate(document) == report
