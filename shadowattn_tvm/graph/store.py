"""Banks on disk: read with every mistake named, and checked against the plan and their hashes."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from ..config.documents import read_json_object, validated
from ..errors import LibraryError
from ..plan import Plan, plan_hash
from .manifest import BankFile, BankManifest

MANIFEST = "manifest.json"

_MAX_FILE_BYTES = 256 << 20
"""Graphs take tens of kilobytes; anything far beyond is not a bank's."""


@dataclass(frozen=True)
class LoadedBank:
    """A bank whose files are as its manifest says.

    Attributes
    ----------
    objects : one a graph, in the manifest's order.
    """

    manifest: BankManifest
    objects: tuple[bytes, ...]


def load_bank(folder: Path, plan: Plan | None = None) -> LoadedBank:
    """Read a bank. With `plan` it must be that plan's.

    Raises `LibraryError` for what is missing, truncated, altered, or made from another plan.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise LibraryError(
            f"no bank at {folder}: expected {MANIFEST} there; make one with `shadowattn compile "
            f"MODEL_DIR --device hexagon-v75 --plan PLAN -o {folder}`"
        )
    manifest = validated(
        BankManifest, read_json_object(path, LibraryError), f"{path}: not a bank", LibraryError
    )
    if plan is not None and manifest.plan_hash != plan_hash(plan):
        raise LibraryError(
            f"{folder} was compiled from another plan: expected plan hash {plan_hash(plan)[:12]}, "
            f"got {manifest.plan_hash[:12]}; compile the bank again with this plan"
        )
    expected = list(range(len(manifest.graphs)))
    if [graph.index for graph in manifest.graphs] != expected or not expected:
        raise LibraryError(f"{path}: expected graphs numbered from 0, at least one")
    _read(folder, manifest.library)
    return LoadedBank(manifest, tuple(_read(folder, graph.object) for graph in manifest.graphs))


def _read(folder: Path, file: BankFile) -> bytes:
    path = folder / file.name
    try:
        if file.size_bytes > _MAX_FILE_BYTES or path.stat().st_size != file.size_bytes:
            raise LibraryError(
                f"{path}: expected {file.size_bytes} bytes, got {path.stat().st_size}; compile the "
                "bank again"
            )
        content = path.read_bytes()
    except OSError as error:
        raise LibraryError(f"can't read {path}: {error.strerror}; compile the bank again") from None
    if hashlib.sha256(content).hexdigest() != file.sha256:
        raise LibraryError(
            f"{path} is not the file the bank was made with (SHA-256); compile the bank again"
        )
    return content
