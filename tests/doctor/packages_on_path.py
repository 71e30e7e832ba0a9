"""Packages as pip leaves them, written on the spot."""

from __future__ import annotations

from pathlib import Path

import pytest


def install(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    distribution: str,
    version: str,
    module: str,
    code: str,
) -> None:
    """A package whose import runs `code`, before those that are really there; for this process's
    metadata and for the imports of its children."""
    (folder / module).mkdir(parents=True)
    (folder / module / "__init__.py").write_text(code)
    metadata = folder / f"{distribution.replace('-', '_')}-{version}.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {distribution}\nVersion: {version}\n"
    )
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setenv("PYTHONPATH", str(folder), prepend=":")
