"""Graphs on an emulated DSP: linked with a program that QEMU runs, and called through pipes."""

from __future__ import annotations

import os
import select
import struct
import subprocess
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from ...compiler.hexagon.tools import COMPILER, EMULATOR, LINKER, TIMEOUT_S, require_emulator
from ...config.programs import run_tool
from ...errors import DeviceError

Array = npt.NDArray[Any]

_HARNESS = Path(__file__).with_name("harness.c")
_VERSION = "v66"
"""The newest vector unit that QEMU 7.2 runs whole."""

_FLAGS = (
    "--target=hexagon-unknown-none-elf",
    f"-m{_VERSION}",
    *("-O2", "-G0", "-std=gnu11", "-ffreestanding", "-fno-builtin", "-Wno-everything"),
)

_WROTE_OUTSIDE = -2
_ANSWER = struct.Struct("<iIII")
_TIMEOUT_S = 300.0


@dataclass(frozen=True)
class Counters:
    """What a call executed, exactly repeatable.

    Attributes
    ----------
    packets : groups of up to four instructions that issue together.
    """

    packets: int
    instructions: int
    hvx_instructions: int


class HexagonEmulator:
    """A DSP with some objects' symbols loaded; a context manager, which ends its process.

    Raises `DeviceError` where QEMU, a compiler or a linker is missing, objects don't link, and from
    then on whenever the emulated program is gone.
    """

    def __init__(self, objects: Sequence[bytes], symbols: Sequence[str]) -> None:
        require_emulator()
        self._entries = {symbol: index for index, symbol in enumerate(symbols)}
        self._folder = tempfile.TemporaryDirectory(prefix="shadowattn-hexagon-")
        program = _link(Path(self._folder.name), objects, symbols)
        self._process = subprocess.Popen(
            [EMULATOR, str(program)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the program; whoever calls afterwards gets a `DeviceError`."""
        self._process.kill()
        self._process.communicate()
        self._folder.cleanup()

    def call(self, symbol: str, inputs: Sequence[Array], outputs: Sequence[Array]) -> Counters:
        """Call `symbol(inputs..., outputs...)`, each a pointer; `outputs` are filled.

        Before the call they hold bytes that mean nothing, and so do the gaps around all buffers:
        a graph that writes there is an error.
        """
        if symbol not in self._entries:
            raise DeviceError(f"nothing named {symbol!r} is loaded on the emulated Hexagon")
        buffers = [(array.nbytes, 0) for array in inputs] + [(array.nbytes, 1) for array in outputs]
        request = struct.pack("<II", self._entries[symbol], len(buffers))
        request += b"".join(struct.pack("<II", *buffer) for buffer in buffers)
        request += b"".join(np.ascontiguousarray(array).tobytes() for array in inputs)
        answer_bytes = _ANSWER.size + sum(array.nbytes for array in outputs)
        answer = self._exchange(symbol, request, answer_bytes)
        result, *counters = _ANSWER.unpack_from(answer)
        if result == _WROTE_OUTSIDE:
            raise DeviceError(f"{symbol} wrote outside of the buffers it was given")
        if result != 0:
            raise DeviceError(f"{symbol} returned {result}, expected 0")
        at = _ANSWER.size
        for array in outputs:
            flat = np.frombuffer(answer, array.dtype, array.size, at)
            array[...] = flat.reshape(array.shape)
            at += array.nbytes
        return Counters(*counters)

    def _exchange(self, symbol: str, request: bytes, answer_bytes: int) -> bytes:
        process, deadline = self._process, time.monotonic() + _TIMEOUT_S
        assert process.stdin is not None
        assert process.stdout is not None
        answer = bytearray()
        try:
            _write(process.stdin.fileno(), request)
            while len(answer) < answer_bytes:
                left = deadline - time.monotonic()
                if left <= 0 or not select.select([process.stdout], [], [], left)[0]:
                    self.close()
                    raise DeviceError(f"{symbol} took more than {_TIMEOUT_S:.0f} s: ended")
                part = os.read(process.stdout.fileno(), answer_bytes - len(answer))
                if not part:
                    raise BrokenPipeError
                answer += part
        except (OSError, ValueError):
            raise DeviceError(f"the emulated Hexagon is gone{self._last_words()}") from None
        return bytes(answer)

    def _last_words(self) -> str:
        """What QEMU said when it ended, and how."""
        process = self._process
        if process.stderr is None or process.stderr.closed:
            return ": it was closed"
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            return ""
        words = process.stderr.read().decode(errors="replace").strip().splitlines()
        return f" (exit code {process.returncode})" + (f": {words[-1]}" if words else "")


def _write(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _link(folder: Path, objects: Sequence[bytes], symbols: Sequence[str]) -> Path:
    declarations = "".join(f"extern int {symbol}();\n" for symbol in symbols)
    table = ", ".join(f"(void *){symbol}" for symbol in symbols)
    (folder / "entries.c").write_text(
        f"{declarations}void *const entries[] = {{{table}}};\n"
        f"unsigned int const num_entries = {len(symbols)};\n"
    )
    compiled = []
    for source in (_HARNESS, folder / "entries.c"):
        compiled.append(str(folder / f"{source.stem}.o"))
        run_tool([COMPILER, *_FLAGS, "-c", str(source), "-o", compiled[-1]], TIMEOUT_S)
    for index, elf in enumerate(objects):
        compiled.append(str(folder / f"{index}.o"))
        Path(compiled[-1]).write_bytes(elf)
    program = folder / "program"
    run_tool(
        [LINKER, "-m", "hexagonelf", "-static", "-e", "_start", *compiled, "-o", str(program)],
        TIMEOUT_S,
    )
    return program
