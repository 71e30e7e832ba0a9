"""`--overrides "context_window_size=4096;prefill_chunk_size=256"`, in MLC's syntax."""

from __future__ import annotations

from ..config.architecture import LlamaConfig
from ..errors import ConfigError

_KEYS = ("context_window_size", "prefill_chunk_size")


def parse_overrides(text: str) -> dict[str, int]:
    """`key=value` pairs separated by `;`. Raises `ConfigError` for unknown keys and values that
    are not positive integers."""
    overrides: dict[str, int] = {}
    for pair in filter(None, (part.strip() for part in text.split(";"))):
        key, separator, value = (part.strip() for part in pair.partition("="))
        if not separator or key not in _KEYS:
            raise ConfigError(
                f"--overrides: expected KEY=VALUE pairs separated by ';' with keys "
                f"{', '.join(_KEYS)}, got {pair!r}"
            )
        if not (value.isascii() and value.isdigit() and int(value) > 0):
            raise ConfigError(f"--overrides: {key}: expected a positive integer, got {value!r}")
        overrides[key] = int(value)
    return overrides


def apply_overrides(architecture: LlamaConfig, text: str) -> LlamaConfig:
    """The architecture with the limits in `text`. Raises `ConfigError`."""
    return architecture.with_limits(**parse_overrides(text))
