"""The tasks by name. A task is a function from a context to a result document.

A new task is a file here and a line in `TASKS`; its result is a field of `results.Results` of the
same name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..context import EvaluationContext
from ..document import TaskResult
from .agreement import run_agreement
from .needle import run_needle
from .passkey import run_passkey
from .ppl import run_ppl
from .recall import run_recall

Task = Callable[[EvaluationContext], TaskResult]
"""Raises `ConfigError` when the context can't carry it (too few windows, too short a context)."""

TASKS: Mapping[str, Task] = {
    "recall": run_recall,
    "ppl": run_ppl,
    "passkey": run_passkey,
    "needle": run_needle,
    "agreement": run_agreement,
}
"""In the order they are run in."""
