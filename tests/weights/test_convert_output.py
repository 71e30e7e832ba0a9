"""Where a conversion goes: what it replaces and keeps; a failure, a full disk or an interrupt
leaves everything as it was."""

from __future__ import annotations

import errno
import os
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from shadowattn_tvm.errors import OutputError
from shadowattn_tvm.weights import convert_weight


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_converting_again_replaces_and_keeps_other_files(gguf_file: Path, tmp_path: Path) -> None:
    output = tmp_path / "out"
    convert_weight(gguf_file, "q0f32", output)
    (output / "lib.so").write_bytes(b"compiled")
    (output / "notes").mkdir()
    (output / "notes" / "a.txt").write_text("mine")
    directory = convert_weight(gguf_file, "q4f32_1", output)
    assert directory.quantization == "q4f32_1"
    assert (output / "lib.so").read_bytes() == b"compiled"
    assert (output / "notes" / "a.txt").read_text() == "mine"
    assert {p.name for p in output.glob("params_shard_*")} == {"params_shard_0.bin"}
    assert [p.name for p in tmp_path.iterdir()] == ["out"]


def test_another_folder_is_not_overwritten(gguf_file: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("ten years of work")
    with pytest.raises(OutputError, match="empty or new folder"):
        convert_weight(gguf_file, "q0f32", tmp_path)
    assert snapshot(tmp_path) == {"thesis.tex": b"ten years of work"}


def test_a_file_is_not_overwritten(gguf_file: Path, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    with pytest.raises(OutputError, match="got a file"):
        convert_weight(gguf_file, "q0f32", tmp_path / "out")
    assert snapshot(tmp_path) == {"out": b"mine"}


def test_the_source_is_not_swallowed(gguf_file: Path, tmp_path: Path) -> None:
    output = convert_weight(gguf_file, "q0f32", tmp_path / "out").path
    inside = shutil.copy(gguf_file, output / "tiny.gguf")
    before = snapshot(output)
    for source in (Path(inside), output):
        with pytest.raises(OutputError, match="lies in it"):
            convert_weight(source, "q4f32_1", output)
    assert snapshot(output) == before


@contextmanager
def file_size_limit(num_bytes: int) -> Iterator[None]:
    """The kernel refuses to let files grow beyond, as a full disk would."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_file_too_large_for_the_system_leaves_nothing(gguf_file: Path, tmp_path: Path) -> None:
    with file_size_limit(100_000), pytest.raises(OutputError, match="files this large"):
        convert_weight(gguf_file, "q0f32", tmp_path / "new" / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("code", "message"),
    [(errno.ENOSPC, "disk is full"), (errno.EDQUOT, "quota"), (errno.EIO, "disk reported")],
)
def test_a_disk_that_fills_up_leaves_the_old_model(
    code: int, message: str, gguf_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = convert_weight(gguf_file, "q0f32", tmp_path / "out").path
    before = snapshot(tmp_path)

    def full(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr("shadowattn_tvm.weights.shard_writer.ShardWriter.finish", full)
    with pytest.raises(OutputError, match=message):
        convert_weight(gguf_file, "q4f32_1", output)
    assert snapshot(tmp_path) == before


def test_a_read_only_place_is_named(
    gguf_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_only(self: Path, *_: object, **__: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(self))

    monkeypatch.setattr(Path, "mkdir", read_only)
    with pytest.raises(OutputError, match="read-only"):
        convert_weight(gguf_file, "q0f32", tmp_path / "out")


def test_an_interrupt_leaves_nothing(gguf_file: Path, tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        if done > total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        convert_weight(gguf_file, "q0f32", tmp_path / "new" / "out", progress=interrupt)
    assert list(tmp_path.iterdir()) == []
