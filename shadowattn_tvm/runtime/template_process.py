"""The other end of `template_worker`: a process that renders templates, replaced when it fails."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import weakref
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import ConfigError

_WORKER = Path(__file__).with_name("template_worker.py")
_MAX_WALL_S = 20.0
"""The worker limits its own CPU time; this catches one that waits, on a machine that is busy."""


class TemplateProcess:
    """Starts with the first request, or earlier with `start`; ends with this object."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> subprocess.Popen[bytes]:
        """Make sure that the process runs. It gets ready while the caller does other things."""
        if self._process is None:
            self._process = subprocess.Popen(
                # -P: the worker's folder must not shadow modules it imports.
                [sys.executable, "-P", str(_WORKER)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,  # Ctrl-C is for us; we stop the worker
            )
            weakref.finalize(self, _stop, self._process)
        return self._process

    def render(self, template: str, variables: Mapping[str, Any]) -> str:
        """The rendered template. Raises `ConfigError` saying what went wrong; whatever is raised,
        the next request finds a process that answers it and nothing else."""
        process = self.start()
        assert process.stdin is not None
        assert process.stdout is not None
        timer = threading.Timer(_MAX_WALL_S, process.kill)
        try:
            timer.start()
            request = json.dumps({"template": template, "variables": variables})
            process.stdin.write(request.encode("ascii") + b"\n")
            process.stdin.flush()
            answer = json.loads(process.stdout.readline())
        except (OSError, json.JSONDecodeError):  # it died before or while it answered
            self._drop()
            raise ConfigError(
                "rendering was stopped; it took more time or memory than any template should"
            ) from None
        except BaseException:  # an interrupt: its answer must not be taken for the next one's
            self._drop()
            raise
        finally:
            timer.cancel()
        if "error" in answer:
            raise ConfigError(answer["error"])
        return str(answer["text"])

    def _drop(self) -> None:
        if self._process is not None:
            _stop(self._process)
        self._process = None


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.communicate()  # closes the pipes and reaps it
