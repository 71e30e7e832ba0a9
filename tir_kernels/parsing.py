"""Parsing TVMScript without a walk through every loaded module.

For every macro and buffer TVM's parser calls `inspect.stack()`, and Python looks up the module of
each frame. The parser runs expressions as code of a file "<ast>", which is in no module, and before
Python gives up on it, it walks through all modules that are loaded, thousands with torch.
"""

from __future__ import annotations

import inspect
import os

_IN_NO_MODULE = ("<ast>", "<string>", "<frozen runpy>")
"""File names of code on the parser's stack: TVM's expressions, `python -c` and `python -m`."""


def remember_evaluated_code() -> None:
    """Note in Python's own table of files that such code has no module: the walk's result. Once a
    process, before kernels are parsed; it holds for the working directory of the call."""
    modules_by_file: dict[str, str] = vars(inspect).get("modulesbyfile", {})
    for name in _IN_NO_MODULE:
        modules_by_file.setdefault(os.path.abspath(name), name)
