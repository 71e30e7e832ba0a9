"""Where things live: the cache for downloads and the configuration files we ship."""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import ConfigError

CACHE_VARIABLE = "SHADOWATTN_CACHE"
"""Environment variable that names the cache folder."""


def cache_dir() -> Path:
    """Folder for downloads and what can be made again: $SHADOWATTN_CACHE, else
    $XDG_CACHE_HOME/shadowattn, else ~/.cache/shadowattn. Read at call time; not created here."""
    if chosen := os.environ.get(CACHE_VARIABLE):
        return Path(chosen).expanduser().absolute()
    xdg = Path(os.environ.get("XDG_CACHE_HOME") or "")
    # The XDG base directory specification: relative paths are invalid and to be ignored.
    base = xdg if xdg.is_absolute() else Path.home() / ".cache"
    return base / "shadowattn"


def configs_dir() -> Path:
    """Folder of the configuration files we ship: beside the package in a checkout, inside it when
    installed from a wheel. Raises `ConfigError` if it is missing."""
    return _shipped("configs", "the configuration files")


def tuning_logs_dir() -> Path:
    """Folder of the tuning logs we ship, found like the configuration files. Raises `ConfigError`
    if it is missing."""
    return _shipped("tuning_logs", "the tuning logs")


def _shipped(name: str, what: str) -> Path:
    package = Path(__file__).resolve().parent.parent
    candidates = (package / f"_{name}", package.parent / name)
    for folder in candidates:
        if folder.is_dir():
            return folder
    raise ConfigError(
        f"{what} are missing: expected them at {candidates[0]} or {candidates[1]}; install "
        "shadowattn-tvm again"
    )
