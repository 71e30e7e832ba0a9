"""The tasks by name. A task is a function from a context to a result document.

A new task is a file here and a line in `TASKS`; its result is a field of `results.Results` of the
same name.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from ..context import EvaluationContext
from ..document import TaskResult

Task = Callable[[EvaluationContext], TaskResult]
"""Raises `ConfigError` when the context can't carry it (too few windows, too short a context)."""

TASKS: Mapping[str, Task] = {}
"""In the order they are run in."""
