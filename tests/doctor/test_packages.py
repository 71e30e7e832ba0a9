"""Packages that are there, elsewhere, of another version, or broken in one of the many ways."""

from __future__ import annotations

from pathlib import Path

import pytest

from shadowattn_tvm.doctor.packages import PACKAGES, Package, pinned_version
from shadowattn_tvm.doctor.probe import Outcome, run_python
from tests.doctor.packages_on_path import install

ABORTS = "import os, signal; os.kill(os.getpid(), signal.SIGABRT)"
RAISES = "raise ImportError('libsomething.so.1: cannot open shared object file')"


def works(said: str = "") -> Outcome:
    return Outcome(True, said)


@pytest.mark.parametrize(
    ("version", "code", "state", "found"),
    [
        ("2.13.0+cpu", "", "ok", "2.13.0+cpu as tested"),
        ("9.9", "", "untested", "9.9; tested with 2.13.0"),
        ("2.13.0", RAISES, "broken", "2.13.0: ImportError: libsomething.so.1: cannot open"),
        ("2.13.0", ABORTS, "broken", "2.13.0: it ends its process by signal 6"),
        ("2.13.0", "raise SystemExit(3)", "broken", "2.13.0: exit code 3"),
    ],
    ids=["ok", "another version", "raises", "aborts", "exits"],
)
def test_a_package_as_it_is(
    version: str,
    code: str,
    state: str,
    found: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    install(tmp_path / "site", monkeypatch, "torch", version, "torch", code)
    (torch,) = (package for package in PACKAGES if package.distribution == "torch")
    finding = torch.examine(run_python)
    assert (finding.state, finding.required) == (state, False)
    assert finding.found.startswith(found)
    assert finding.install == "pip install 'shadowattn-tvm[calibrate]'"
    assert not finding.fails


def test_a_package_that_is_not_there() -> None:
    def never(_: str) -> Outcome:
        raise AssertionError("nothing to run")

    absent = Package("no-such-package-of-ours", "import nothing", "nothing", "pip install x")
    finding = absent.examine(never)
    assert (finding.state, finding.found, finding.fails) == ("missing", "not installed", False)
    needed = Package("no-such-package-of-ours", "", "all", "pip install x", required=True)
    assert needed.examine(never).fails


def test_required_packages_of_another_version_fail() -> None:
    (numpy,) = (package for package in PACKAGES if package.distribution == "numpy")
    assert not numpy.examine(lambda code: works()).fails, "any version will do"
    other = Package("pytest", "", "all", "pip install x", required=True)
    assert not other.examine(lambda code: works()).fails, "nobody pins it"
    assert pinned_version("apache-tvm") == "0.26.0"
    assert pinned_version("numpy") is None
    assert pinned_version("no-such-package-of-ours") is None


def test_the_working_directory_is_nobodys_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torch.py").write_text(ABORTS)
    monkeypatch.chdir(tmp_path)
    assert run_python("import sys; print('torch.py' in sys.path, end='\\n\\n')") == works("False")
    assert "ModuleNotFoundError" in run_python("import no_such_module").said


def test_a_package_that_hangs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shadowattn_tvm.doctor.probe._TIMEOUT_S", 0.2)
    assert run_python("import time; time.sleep(60)") == Outcome(False, "no answer within 0.2 s")
