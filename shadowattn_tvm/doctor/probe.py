"""Trying a package in a process of its own, so that whatever it does there is a finding.

Packages with native code don't only raise: they abort, or wait for a driver that isn't there.
"""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass

_TIMEOUT_S = 120
"""TVM and torch take seconds; a cold disk, more."""


@dataclass(frozen=True)
class Outcome:
    """`works`, and what was printed last; otherwise why it failed."""

    works: bool
    said: str


def run_python(code: str) -> Outcome:
    """What a piece of Python prints in this interpreter, with this environment. Never raises."""
    try:
        done = subprocess.run(
            # -P: not what happens to lie in the working directory
            [sys.executable, "-P", "-c", code],
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            timeout=_TIMEOUT_S,
        )
    except subprocess.TimeoutExpired:
        return Outcome(False, f"no answer within {_TIMEOUT_S} s")
    except OSError as error:
        return Outcome(False, f"can't start Python: {error.strerror}")
    if done.returncode == 0:
        return Outcome(True, _last_line(done.stdout))
    if done.returncode < 0:
        return Outcome(False, f"it ends its process by signal {-done.returncode}")
    return Outcome(False, _last_line(done.stderr) or f"exit code {done.returncode}")


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else ""
