"""Where the chat's lines come from: a terminal with line editing, or any stream of bytes."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from typing import BinaryIO, TextIO

LineReader = Callable[[str], str]
"""Shows a prompt, returns one line without its end.

Raises `EOFError` at the end of the input, `KeyboardInterrupt`, and `UnicodeDecodeError` for a line
that is not UTF-8 (the next call reads the line after it).
"""

CONTINUATION = "\\"
"""A line that ends with it goes on in the next."""


def terminal_reader() -> LineReader:
    """Lines typed at this process's terminal, with history and editing where readline exists.
    Escape followed by Enter continues the message on a new line, as in MLC's chat."""
    if importlib.util.find_spec("readline"):
        import readline

        readline.parse_and_bind(r'"\e\C-m": "\\\C-m"')
    return input


def stream_reader(source: BinaryIO, prompts: TextIO) -> LineReader:
    """Lines of a byte stream, decoded as UTF-8 one by one; prompts are shown on `prompts`."""

    def read(prompt: str) -> str:
        prompts.write(prompt)
        prompts.flush()
        line = source.readline()
        if not line:
            raise EOFError
        return line.rstrip(b"\r\n").decode("utf-8")

    return read


def standard_reader() -> LineReader:
    """Whichever of the two suits this process's standard input."""
    if sys.stdin.isatty() and sys.stdout.isatty():
        return terminal_reader()
    return stream_reader(sys.stdin.buffer, sys.stdout)


def read_message(read_line: LineReader, prompt: str, continuation_prompt: str) -> str:
    """One message: a line, and those it continues on. Raises like `LineReader`; a line that is
    not UTF-8 drops the message."""
    lines = [read_line(prompt)]
    while lines[-1].endswith(CONTINUATION):
        lines[-1] = lines[-1].removesuffix(CONTINUATION)
        lines.append(read_line(continuation_prompt))
    return "\n".join(lines)
