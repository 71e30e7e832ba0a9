"""Parsing TVMScript without doing the same over and over: kernels are parsed in half the time.

TVM 0.26 looks for the running parser at every call of a macro, and for who makes a buffer, through
`inspect.stack()`: the source lines of a hundred frames for one that is needed. And it parses the
text of a macro anew at each call. What is found stays the same.
"""

from __future__ import annotations

import inspect
import sys
from functools import cache
from typing import Any

from tvm.script.parser.core import doc
from tvm.script.parser.core.diagnostics import Source
from tvm.script.parser.core.parser import Parser, ScriptMacro
from tvm.tirx.script.builder import ir

from .parsing import remember_evaluated_code


def quicken_parsing() -> None:
    """Have TVM look and parse as below, in this process; before kernels are made, once or more
    often."""
    remember_evaluated_code()
    ScriptMacro._find_parser_def = _running_parser
    ir._record_meta_resource = _record_resource
    Source.as_ast = _tree_of


def _running_parser(_macro: ScriptMacro) -> Parser:
    frame = inspect.currentframe()
    while frame is not None:
        parser = frame.f_globals.get(ScriptMacro.parser_object_name)
        if parser is not None:
            return parser
        frame = frame.f_back
    raise RuntimeError("a TVMScript macro was called outside of a kernel")


def _record_resource(value: Any, skip_frames: int = 2) -> None:
    """The caller of TVM's builder is noted as the place where `value` was made."""
    scope = ir._current_meta_construction_scope()
    if scope is None:
        return
    frame = sys._getframe(skip_frames)
    while frame.f_code.co_filename == ir.__file__ and frame.f_back is not None:
        frame = frame.f_back
    scope.record(value, inspect.getframeinfo(frame))


def _tree_of(source: Source) -> doc.AST:
    return _tree_of_text(source.source)


@cache  # the parser reads the tree and changes nothing in it
def _tree_of_text(text: str) -> doc.AST:
    return doc.parse(text)
