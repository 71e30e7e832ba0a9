"""What a sweep has measured, on disk after every window: interrupted runs go on, and points that
sweeps have in common are measured once."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from ..config.atomic import write_text_atomically
from ..errors import OutputError

_MAX_BYTES = 64 << 20


def digest_of(*facts: object) -> str:
    """SHA-256 (hex) of facts whose `repr` says all there is to them (numbers, strings, frozen
    dataclasses of such)."""
    return hashlib.sha256(repr(facts).encode()).hexdigest()


class SweepCache:
    """Lists of numbers by key.

    Parameters
    ----------
    path : a JSON file, made when there is something to keep; one that is damaged counts for
        nothing. None keeps numbers in memory only.
    """

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._values: dict[str, list[float]] = {} if path is None else _read(path)

    def get(self, key: str) -> list[float] | None:
        """What was measured under `key`, None if nothing was yet."""
        return self._values.get(key)

    def put(self, key: str, values: list[float]) -> None:
        """Remember. Raises `OutputError` when the file can't be written."""
        self._values[key] = values
        if self._path is not None:
            write_text_atomically(self._path, json.dumps(self._values, indent=0))


def _read(path: Path) -> dict[str, list[float]]:
    try:
        if path.stat().st_size > _MAX_BYTES:
            return {}
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise OutputError(f"can't read {path}: {error.strerror}") from None
    except (ValueError, RecursionError):
        return {}
    sound = isinstance(values, dict) and all(
        isinstance(numbers, list) and all(isinstance(number, float) for number in numbers)
        for numbers in values.values()
    )
    return values if sound else {}
