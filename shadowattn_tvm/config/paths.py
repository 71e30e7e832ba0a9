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
    package = Path(__file__).resolve().parent.parent
    candidates = (package / "_configs", package.parent / "configs")
    for folder in candidates:
        if folder.is_dir():
            return folder
    raise ConfigError(
        f"the configuration files are missing: expected them at {candidates[0]} or "
        f"{candidates[1]}; install shadowattn-tvm again"
    )
