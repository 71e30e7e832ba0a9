"""Outputs appear whole or not at all: errors, interrupts, full disks, things already in the way."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from shadowattn_tvm.config import atomic_directory, write_atomically, write_text_atomically
from shadowattn_tvm.errors import OutputError


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text("old")
    with write_atomically(path) as staged:
        assert staged.parent == tmp_path
        assert staged.suffix == ".json"
        staged.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"
    assert names(tmp_path) == ["plan.json"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failed_file_leaves_the_old_one(error: type[BaseException], tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    path.write_text("old")

    def fail_halfway() -> None:
        with write_atomically(path) as staged:
            staged.write_text("half")
            raise error

    with pytest.raises(error):
        fail_halfway()
    assert path.read_text() == "old"
    assert names(tmp_path) == ["plan.json"]


def test_missing_folders_are_made_and_unmade(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "plan.json"
    with pytest.raises(RuntimeError), write_atomically(path):
        raise RuntimeError
    assert names(tmp_path) == []
    write_text_atomically(path, "é")
    assert path.read_bytes() == "é".encode()


def test_a_link_keeps_pointing_at_what_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    link = tmp_path / "link.txt"
    link.symlink_to(tmp_path / "real" / "file.txt")
    write_text_atomically(link, "x")
    assert link.is_symlink()
    assert (tmp_path / "real" / "file.txt").read_text() == "x"


def test_a_full_device_is_told_and_survives() -> None:
    device = Path("/dev/full")
    with pytest.raises(OutputError, match="can't write to /dev/full: the disk is full"):
        write_text_atomically(device, "x" * 100)
    assert device.is_char_device()


def test_a_pipe_is_written_directly(tmp_path: Path) -> None:
    path = tmp_path / "pipe"
    os.mkfifo(path)
    reader = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        write_text_atomically(path, "hello")
        assert os.read(reader, 100) == b"hello"
    finally:
        os.close(reader)
    assert names(tmp_path) == ["pipe"]


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("", "got a folder"),
        ("file/plan.json", "a file, not a folder"),
        ("file/deep/plan.json", "a file, not a folder"),
        ("x" * 300, "too long"),
    ],
)
def test_places_that_cannot_be_written(path: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(OutputError, match=message):
        write_text_atomically(tmp_path / path, "x")
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EACCES, errno.EDQUOT])
def test_refusals_of_the_system_are_told(code: int, tmp_path: Path) -> None:
    with pytest.raises(OutputError) as caught, write_atomically(tmp_path / "x") as staged:
        raise OSError(code, os.strerror(code), str(staged))
    assert str(caught.value).startswith(f"can't write to {tmp_path / 'x'}: ")
    assert isinstance(caught.value.__cause__, OSError)


def test_errors_of_other_files_pass(tmp_path: Path) -> None:
    """A source that can't be read is not an output that can't be written."""
    with pytest.raises(PermissionError), write_atomically(tmp_path / "x"):
        raise PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "source"))
    with pytest.raises(OSError, match="strange"), write_atomically(tmp_path / "x"):
        raise OSError(errno.EINVAL, "strange")


def test_a_directory_appears_whole(tmp_path: Path) -> None:
    target = tmp_path / "model"
    with atomic_directory(target) as staged:
        (staged / "a").write_text("1")
        assert not target.exists()
    assert names(target) == ["a"]
    assert names(tmp_path) == ["model"]


def test_a_directory_is_replaced_only_if_told(tmp_path: Path) -> None:
    target = tmp_path / "model"
    target.mkdir()
    with atomic_directory(target) as staged:  # an empty one may go
        (staged / "a").write_text("1")
    with pytest.raises(OutputError, match="empty or new folder"), atomic_directory(target):
        pytest.fail("the work must not start")
    with atomic_directory(target, replace=True) as staged:
        (staged / "b").write_text("2")
        assert names(target) == ["a"]
    assert names(target) == ["b"]
    assert names(tmp_path) == ["model"]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failed_directory_leaves_the_old_one(error: type[BaseException], tmp_path: Path) -> None:
    target = tmp_path / "model"
    target.mkdir()
    (target / "a").write_text("1")

    def fail_halfway() -> None:
        with atomic_directory(target, replace=True) as staged:
            (staged / "b").write_text("2")
            raise error

    with pytest.raises(error):
        fail_halfway()
    assert names(target) == ["a"]
    assert names(tmp_path) == ["model"]


def test_a_failed_rename_puts_the_old_directory_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "model"
    target.mkdir()
    (target / "a").write_text("1")
    rename = os.rename

    def fail_for_the_new(source: Path, destination: Path) -> None:
        if destination == target and (source / "b").exists():
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(destination))
        rename(source, destination)

    monkeypatch.setattr(os, "rename", fail_for_the_new)
    with (
        pytest.raises(OutputError, match="disk reported an error"),
        atomic_directory(target, replace=True) as staged,
    ):
        (staged / "b").write_text("2")
    assert names(target) == ["a"]
    assert names(tmp_path) == ["model"]


def test_a_file_is_no_directory(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("mine")
    with pytest.raises(OutputError, match="got a file"), atomic_directory(tmp_path / "x"):
        pytest.fail("the work must not start")


def test_a_file_that_came_meanwhile_stays(tmp_path: Path) -> None:
    path = tmp_path / "cached"
    with write_atomically(path, replace=False) as staged:
        staged.write_text("late")
        path.write_text("quick")
    assert path.read_text() == "quick"
    assert list(tmp_path.iterdir()) == [path]
    path.unlink()
    with write_atomically(path, replace=False) as staged:
        staged.write_text("alone")
    assert path.read_text() == "alone"
