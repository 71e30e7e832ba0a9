"""Making the image fails cleanly; making it whole is what `make arm-device` does."""

from __future__ import annotations

from pathlib import Path

import pytest

from shadowattn_tvm.config.programs import run_tool
from shadowattn_tvm.device.arm import ArmEmulator, ArmSettings, image_path, make_image
from shadowattn_tvm.device.arm.tools import EMULATOR
from shadowattn_tvm.errors import DeviceError


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("SHADOWATTN_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


def programs(folder: Path, monkeypatch: pytest.MonkeyPatch, **scripts: str) -> None:
    """A PATH with these programs only."""
    folder.mkdir()
    for name, script in scripts.items():
        path = folder / name.replace("_", "-")
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)
    monkeypatch.setenv("PATH", str(folder))


def test_missing_programs_are_named_with_their_packages(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs(tmp_path / "bin", monkeypatch, dpkg_deb="exit 0")
    message = r"takes apt-get, qemu-aarch64, .*apt-get install apt qemu-user.*make arm-device"
    with pytest.raises(DeviceError, match=message):
        make_image()
    with pytest.raises(DeviceError, match="make arm-device"):
        ArmEmulator(ArmSettings()).start()
    assert not cache.exists()


@pytest.mark.parametrize(
    ("apt_get", "message"),
    [
        ("echo 'E: no network' >&2; exit 100", "apt-get -qq .*no network"),
        (
            'case "$*" in *install*) echo "E: no package" >&2; exit 100;; esac',
            "no package; expected a package source with python3.11 for arm64",
        ),
    ],
    ids=["update", "install"],
)
def test_what_fails_is_told_and_leaves_nothing(
    apt_get: str, message: str, cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = {"apt_get": apt_get, "dpkg_deb": "exit 0", EMULATOR.replace("-", "_"): "exit 0"}
    programs(tmp_path / "bin", monkeypatch, **tools)
    with pytest.raises(DeviceError, match=message):
        make_image()
    assert not cache.exists()


def test_without_an_image_no_machine_starts(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs(tmp_path / "bin", monkeypatch, **{EMULATOR.replace("-", "_"): "exit 0"})
    with pytest.raises(DeviceError, match=r"no image of an ARM machine.*make arm-device"):
        ArmEmulator(ArmSettings()).start()


def test_a_machine_that_dies_leaves_its_last_words(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tools = {EMULATOR.replace("-", "_"): "echo 'qemu: no such CPU'; exit 1"}
    programs(tmp_path / "bin", monkeypatch, **tools)
    image_path().mkdir(parents=True)
    emulator = ArmEmulator(ArmSettings(cpu="z80"))
    with pytest.raises(DeviceError, match="didn't start: qemu: no such CPU"):
        emulator.start()
    emulator.stop()
    assert not emulator.running


def test_a_program_that_never_ends_is_stopped() -> None:
    with pytest.raises(DeviceError, match="sleep took more than"):
        run_tool(["sleep", "60"], 0.1)
