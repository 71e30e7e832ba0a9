"""Option values that Typer can't check: one of a few, lists of layers, shapes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

from ..errors import ConfigError

Choice = TypeVar("Choice", bound=int | str)


def one_of(option: str, value: int | str, choices: Sequence[Choice]) -> Choice:
    """`value` as one of `choices`. Raises `ConfigError` naming the option."""
    for choice in choices:
        if value == choice:
            return choice
    raise ConfigError(f"{option}: expected one of {', '.join(map(str, choices))}, got {value}")


def parse_shape(text: str) -> tuple[int, int, int]:
    """Query heads, KV heads and head dim of `--shape`. Raises `ConfigError`."""
    parts = text.split("/")
    if len(parts) != 3 or not all(
        part.isascii() and part.isdigit() and int(part) for part in parts
    ):
        raise ConfigError(
            f"--shape: expected query heads, KV heads and head dim as '12/2/128', got {text!r}"
        )
    heads, kv_heads, head_dim = map(int, parts)
    return heads, kv_heads, head_dim


def parse_layers(text: str) -> tuple[int, ...]:
    """The layers of `--dense-layers`. Raises `ConfigError`."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not all(part.isascii() and part.isdigit() for part in parts):
        raise ConfigError(f"--dense-layers: expected numbers as '0,1', got {text!r}")
    return tuple(int(part) for part in parts)
