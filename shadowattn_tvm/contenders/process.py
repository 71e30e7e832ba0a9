"""The other end of `worker`: starts contenders, asks them, and stops them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import BaseModel, ValidationError

from ..errors import ConfigError
from ..runtime.threads import THREADS_VARIABLE
from .messages import ContenderSettings, Failure, Logits, Ready, Reply, Request, unpack_logits

_START = """
import sys
sys.path.insert(0, sys.argv[1])
import shadowattn_tvm, tir_kernels
del sys.path[0]
from shadowattn_tvm.contenders.worker import main
main()
"""
"""The very code that runs here, wherever it is; nothing else is found because it lies beside it."""

_IMPORT_FROM = Path(__file__).parents[2]
_MAX_ERROR_CHARS = 4000

_Message = TypeVar("_Message", bound=BaseModel)
_Name = TypeVar("_Name", bound=str)


@dataclass(frozen=True)
class Answer:
    """See `messages.Reply`."""

    elapsed_ms: float
    logits: Logits
    peak_memory_bytes: int | None


class ContenderProcess:
    """One model in a process of its own, which loads it while the caller does other things.

    All methods raise `ConfigError` for what the user can mend (bad files, too little memory) and
    `RuntimeError` for what is ours.

    Attributes
    ----------
    loaded_memory_bytes : resident once it was ready; None where the system doesn't tell.
    """

    def __init__(self, name: str, settings: ContenderSettings) -> None:
        self._name = name
        self.loaded_memory_bytes: int | None = None
        self._complaints = tempfile.TemporaryFile()  # noqa: SIM115 - closed by `stop`
        threads = str(settings.threads)
        environment = {**os.environ, THREADS_VARIABLE: threads, "OMP_NUM_THREADS": threads}
        # Alone in its process it may wait for work as its authors chose.
        environment.pop("OMP_WAIT_POLICY", None)
        self._process = subprocess.Popen(
            # -P: the user's folder must not shadow modules it imports.
            [sys.executable, "-P", "-c", _START, str(_IMPORT_FROM)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._complaints,
            env=environment,
            start_new_session=True,  # Ctrl-C is for us; we stop the workers
        )
        self._send(settings)

    def wait_until_ready(self) -> None:
        """Until its model is loaded."""
        self.loaded_memory_bytes = self._receive(Ready).memory_bytes

    def prefill(self, token_ids: Sequence[int]) -> Answer:
        """Forget everything and read a prompt."""
        return self._ask(Request(action="prefill", token_ids=tuple(token_ids)))

    def decode(self, token_ids: Sequence[int]) -> Answer:
        """Append tokens one by one, then forget them again."""
        return self._ask(Request(action="decode", token_ids=tuple(token_ids)))

    def stop(self) -> None:
        """End the process, whatever it is doing."""
        self._process.kill()
        self._process.communicate()  # closes the pipes and reaps it
        self._complaints.close()

    def _ask(self, request: Request) -> Answer:
        self._send(request)
        reply = self._receive(Reply)
        return Answer(reply.elapsed_ms, unpack_logits(reply.logits), reply.peak_memory_bytes)

    def _send(self, message: BaseModel) -> None:
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(message.model_dump_json().encode("ascii") + b"\n")
            self._process.stdin.flush()
        except OSError:
            raise self._died() from None

    def _receive(self, kind: type[_Message]) -> _Message:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line.endswith(b"\n"):
            raise self._died()
        try:
            return kind.model_validate_json(line)
        except ValidationError:
            failure = Failure.model_validate_json(line)
        if failure.mistake:
            raise ConfigError(f"{self._name}: {failure.message}")
        raise RuntimeError(f"{self._name} failed in its process:\n{failure.message}")

    def _died(self) -> Exception:
        """Why there is no answer."""
        code = self._process.wait()
        if code == -signal.SIGKILL:
            return ConfigError(
                f"{self._name}: the system stopped its process, most likely for lack of memory; "
                "use shorter prompts or fewer contenders"
            )
        self._complaints.seek(0)
        said = self._complaints.read().decode("utf-8", "replace")[-_MAX_ERROR_CHARS:]
        return RuntimeError(f"{self._name}: its process ended with code {code}; it said:\n{said}")


@contextmanager
def running(
    contenders: Mapping[_Name, ContenderSettings],
) -> Iterator[dict[_Name, ContenderProcess]]:
    """Processes by name, all ready; stopped at the end. Raises like `ContenderProcess`."""
    processes: dict[_Name, ContenderProcess] = {}
    try:
        for name, settings in contenders.items():
            processes[name] = ContenderProcess(name, settings)
        for process in processes.values():
            process.wait_until_ready()
        yield processes
    finally:
        for process in processes.values():
            process.stop()
