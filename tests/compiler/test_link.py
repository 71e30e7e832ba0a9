"""What a missing or failing linker says."""

from __future__ import annotations

from pathlib import Path

import pytest

from shadowattn_tvm.compiler.link import link, require_linker
from shadowattn_tvm.config import write_atomically
from shadowattn_tvm.errors import CompileError


class FailingExecutable:
    """Fails to export as TVM does when its linker fails, after writing a part."""

    def export_library(self, path: str) -> None:
        Path(path).write_bytes(b"half")
        raise RuntimeError("Compilation error:\nld: final link failed: No space left on device\n")


def test_no_compiler_says_how_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CC", raising=False)
    monkeypatch.delenv("CXX", raising=False)
    require_linker()
    monkeypatch.setenv("PATH", "/nowhere")
    with pytest.raises(CompileError, match="apt-get install gcc"):
        require_linker()


def test_a_full_disk_is_told_in_the_linkers_words_and_leaves_nothing(tmp_path: Path) -> None:
    with (
        pytest.raises(CompileError, match="No space left on device"),
        write_atomically(tmp_path / "lib.so") as staged,
    ):
        link(FailingExecutable(), staged)
    assert list(tmp_path.iterdir()) == []
