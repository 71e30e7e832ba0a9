"""Passes that watch: phase times for the user, IR dumps for the developer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import tvm

PhaseCallback = Callable[[str], None]
"""Called with a phase's name when it begins."""


@tvm.transform.module_pass(opt_level=0, name="BeginPhase")
class BeginPhase:
    """Report that a phase begins; the module passes through."""

    def __init__(self, name: str, report: PhaseCallback) -> None:
        self.name = name
        self.report = report

    def transform_module(
        self, module: tvm.IRModule, _context: tvm.transform.PassContext
    ) -> tvm.IRModule:
        self.report(self.name)
        return module


@tvm.transform.module_pass(opt_level=0, name="DumpModule")
class DumpModule:
    """Write the module as TVMScript to `folder/file_name`; nothing where folder is None."""

    def __init__(self, file_name: str, folder: Path | None) -> None:
        self.file_name = file_name
        self.folder = folder

    def transform_module(
        self, module: tvm.IRModule, _context: tvm.transform.PassContext
    ) -> tvm.IRModule:
        if self.folder is not None:
            text = module.script(show_meta=False)
            (self.folder / self.file_name).write_text(text, encoding="utf-8")
        return module
