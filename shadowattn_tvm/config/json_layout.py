"""Our own documents as JSON that people read: what fits in a line takes one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from .atomic import write_text_atomically

_WIDTH = 110
_INDENT = 2


def write_document(path: Path, document: BaseModel) -> None:
    """Write a document as JSON, fields in their order, atomically. Raises `OutputError`."""
    write_text_atomically(path, json_layout(document.model_dump(mode="json")) + "\n")


def json_layout(value: Any, depth: int = 0) -> str:
    """JSON text of a JSON value nested `depth` deep. Lists of plain values, and whatever is short
    enough, take one line: a plan's hundreds of numbers then make rows, not columns.

    Raises `ValueError` for NaN and infinities, which JSON doesn't have.
    """
    line = json.dumps(value, ensure_ascii=False, allow_nan=False)
    margin = " " * (_INDENT * depth)
    items = list(value.values()) if isinstance(value, dict) else value
    nested = isinstance(items, list) and any(isinstance(item, dict | list) for item in items)
    if not isinstance(items, list) or not items or len(margin) + len(line) <= _WIDTH:
        return line
    if isinstance(value, list) and not nested:
        return line
    inner = [json_layout(item, depth + 1) for item in items]
    if isinstance(value, dict):
        names = (json.dumps(name, ensure_ascii=False) for name in value)
        inner = [f"{name}: {item}" for name, item in zip(names, inner, strict=True)]
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    separator = f",\n{margin}{' ' * _INDENT}"
    return f"{opening}\n{margin}{' ' * _INDENT}{separator.join(inner)}\n{margin}{closing}"
