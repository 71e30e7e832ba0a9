"""Documents from outside: read with a bound on their size, validated, every mistake named.

Shared by everything that reads JSON or TOML. The caller says which error class the mistake is:
a configuration's (`ConfigError`) or a checkpoint's (`WeightsError`).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from ..errors import ConfigError, ShadowAttnError

_MAX_DOCUMENT_BYTES = 256 << 20
"""A tokenizer.json of 256k tokens takes about 35 MB; anything far beyond is not a document."""

_MAX_MISTAKES_SHOWN = 10

Document = TypeVar("Document", bound=BaseModel)


def read_json_object(
    path: Path, error_class: type[ShadowAttnError] = ConfigError
) -> dict[str, Any]:
    """The JSON object in a file. Raises `error_class` if it is unreadable or anything else."""
    text = read_text(path, error_class)
    try:
        value = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise error_class(f"{path}: expected JSON, got {error}") from None
    except ValueError as error:  # an integer of thousands of digits
        raise error_class(f"{path}: expected JSON, got {error}") from None
    if not isinstance(value, dict):
        raise error_class(f"{path}: expected a JSON object, got a {type(value).__name__}")
    return value


def read_text(path: Path, error_class: type[ShadowAttnError] = ConfigError) -> str:
    """The UTF-8 text in a file. Raises `error_class` if it is unreadable or anything else."""
    try:
        size_bytes = path.stat().st_size
        if size_bytes > _MAX_DOCUMENT_BYTES:
            raise error_class(
                f"{path}: expected at most {_MAX_DOCUMENT_BYTES} bytes, got {size_bytes}"
            )
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise error_class(f"{path}: expected UTF-8 text, got {error}") from None
    except OSError as error:
        raise error_class(f"can't read {path}: {error.strerror}") from None


def validated(
    model: type[Document],
    value: Mapping[str, Any],
    where: str,
    error_class: type[ShadowAttnError] = ConfigError,
) -> Document:
    """`value` as a `model`. Raises `error_class` listing every offending value by its path,
    below `where`."""
    try:
        return model.model_validate(value)
    except ValidationError as error:
        raise error_class(describe_mistakes(error, where)) from None


def describe_mistakes(error: ValidationError, where: str) -> str:
    """What pydantic found wrong, a line each: the path to the value, what was expected, what was
    got."""
    mistakes = error.errors(include_url=False)
    lines = [_describe(item) for item in mistakes[:_MAX_MISTAKES_SHOWN]]
    if len(mistakes) > _MAX_MISTAKES_SHOWN:
        lines.append(f"  and {len(mistakes) - _MAX_MISTAKES_SHOWN} more")
    return "\n".join([f"{where}: {len(mistakes)} values are not as expected", *lines])


def _describe(item: Any) -> str:
    path = ".".join(str(part) for part in item["loc"])
    message = item["msg"].removeprefix("Value error, ")
    if item["type"] == "missing":
        return f"  {path}: {message}"
    if item["type"] == "value_error":  # our own validators say themselves what they got
        return f"  {path}: {message}" if path else f"  {message}"
    return f"  {path}: {message}, got {repr(item['input'])[:80]}"
