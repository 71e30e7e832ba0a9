"""The text format of the public implementation's profiles (AE), in and out.

A line a layer, a decimal number a query head, each followed by one space: what an NPU runtime
reads at start. Numbers keep their text: an imported profile is exported byte for byte.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from pathlib import Path

from ..errors import PlanError
from .ratios import RatioProfile, RatioSource, mean_ratio, parse_ratio

_MAX_PROFILE_BYTES = 4 << 20
"""A model of 126 layers of 128 heads takes 350 kB; this is ten times as much."""

_MAX_NUMBER_CHARACTERS = 64
"""A float64 has at most 17 significant digits; this leaves room for generous writers."""

_FIELD = re.compile(r"[^ \t]+")


def read_ae_profile(path: Path) -> RatioProfile:
    """Read a profile. Raises `PlanError` naming line and column of what can't be one.

    Spaces may be missing at the end of a line, and lines may end as on Windows; such a file is
    exported in the format's own layout.
    """
    content = _read_bounded(path)
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise PlanError(f"{path}: expected text, got {error}") from None
    rows = _parse(text, path)
    keep_ratios = tuple(tuple(value for _, value in row) for row in rows)
    spellings = tuple(tuple(spelling for spelling, _ in row) for row in rows)
    shortest = tuple(tuple(map(repr, row)) for row in keep_ratios)
    return RatioProfile(
        ratio=mean_ratio(keep_ratios),
        source=RatioSource(name=path.name, sha256=hashlib.sha256(content).hexdigest()),
        keep_ratios=keep_ratios,
        spellings=None if spellings == shortest else spellings,
    )


def format_ae_profile(rows: Sequence[Sequence[float | str]]) -> str:
    """The text of `[layer][query head]` ratios: floats in the shortest decimal text that means
    the same float64, texts as they are."""
    return "".join("".join(f"{_spell(value)} " for value in row) + "\n" for row in rows)


def ae_profile_text(profile: RatioProfile) -> str:
    """A profile in the text format, every number spelled as it was read."""
    return format_ae_profile(profile.spellings or profile.keep_ratios)


def _spell(value: float | str) -> str:
    return value if isinstance(value, str) else repr(value)


def _read_bounded(path: Path) -> bytes:
    """A file's bytes, no more of them than a profile may have."""
    try:
        with path.open("rb") as file:
            content = file.read(_MAX_PROFILE_BYTES + 1)
    except OSError as error:
        raise PlanError(f"can't read {path}: {error.strerror}") from None
    if len(content) > _MAX_PROFILE_BYTES:
        raise PlanError(
            f"{path}: expected a profile of at most {_MAX_PROFILE_BYTES} bytes, got more"
        )
    return content


def _parse(text: str, path: Path) -> list[list[tuple[str, float]]]:
    """`[layer][head]` of (spelling, value)."""
    lines = text.replace("\r\n", "\n").rstrip("\n").split("\n")
    rows: list[list[tuple[str, float]]] = []
    for number, line in enumerate(lines, start=1):
        row = [_parse_field(field, path, number) for field in _FIELD.finditer(line)]
        if not row:
            raise PlanError(f"{path}, line {number}: expected a number a head, got an empty line")
        if rows and len(row) != len(rows[0]):
            raise PlanError(
                f"{path}, line {number}: expected {len(rows[0])} numbers as in line 1, got "
                f"{len(row)}"
            )
        rows.append(row)
    return rows


def _parse_field(field: re.Match[str], path: Path, line: int) -> tuple[str, float]:
    text = field.group()
    value = parse_ratio(text) if len(text) <= _MAX_NUMBER_CHARACTERS else None
    if value is None:
        raise PlanError(
            f"{path}, line {line}, column {field.start() + 1}: expected a decimal number between "
            f"0 and 1 of at most {_MAX_NUMBER_CHARACTERS} characters, got {text[:40]!r}"
        )
    return text, value
