"""Lines from streams and from a real (pseudo) terminal."""

from __future__ import annotations

import io
import os
import sys

import pytest

from shadowattn_tvm.runtime.console import read_message, stream_reader


def reader(data: bytes):
    return stream_reader(io.BytesIO(data), io.StringIO())


def test_line_ends_of_any_system_are_dropped():
    read = reader("é\r\nb\nlast".encode())
    assert [read(""), read(""), read("")] == ["é", "b", "last"]
    with pytest.raises(EOFError):
        read("")


def test_a_bad_line_does_not_spoil_the_next():
    read = reader(b"\xc3(\nfine\n")
    with pytest.raises(UnicodeDecodeError):
        read("")
    assert read("") == "fine"


def test_prompts_are_shown():
    shown = io.StringIO()
    read = stream_reader(io.BytesIO(b"a\\\nb\n"), shown)
    assert read_message(read, "> ", ". ") == "a\nb"
    assert shown.getvalue() == "> . "


TYPE_AT_A_TERMINAL = """
import sys
from shadowattn_tvm.runtime.console import read_message, standard_reader
print(repr(read_message(standard_reader(), "> ", ". ")), flush=True)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo terminal")
def test_escape_enter_continues_at_a_terminal():
    pytest.importorskip("readline", reason="line editing is optional")
    import pty

    pid, terminal = pty.fork()
    if pid == 0:
        os.environ["TERM"] = "dumb"
        os.execv(sys.executable, [sys.executable, "-c", TYPE_AT_A_TERMINAL])
    shown = b""
    typed = iter([b"one\x1b\r", b"two\r"])
    try:
        while b"\\n" not in shown and (data := os.read(terminal, 4096)):
            shown += data
            if shown.endswith((b"> ", b". ")):
                os.write(terminal, next(typed))
    finally:
        os.close(terminal)
        os.waitpid(pid, 0)
    assert b"'one\\ntwo'" in shown
