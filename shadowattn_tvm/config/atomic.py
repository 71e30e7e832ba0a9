"""Outputs appear whole or not at all: a temporary sibling, then one rename.

Contents
- `write_atomically`: a file, written by whoever is handed the temporary path.
- `write_text_atomically`: a file, from a string.
- `atomic_directory`: a directory, filled by whoever is handed the temporary path.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import OutputError

_ADVICE = {
    errno.ENOSPC: "the disk is full: free some space or choose another place",
    errno.EDQUOT: "the disk quota is used up: free some space or choose another place",
    errno.EFBIG: "the file system or a limit (ulimit -f) forbids files this large",
    errno.EROFS: "the file system is read-only: choose another place",
    errno.EACCES: "permission denied: choose a place you may write to",
    errno.EPERM: "operation not permitted: choose a place you may write to",
    errno.EEXIST: "a part of the path is a file, not a folder",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
    errno.EISDIR: "expected a file's path, got a folder",
    errno.ENOTEMPTY: "the folder was filled by someone else meanwhile: try again",
    errno.EBUSY: "the folder is a mount point or in use: choose another place",
    errno.ENAMETOOLONG: "the name is too long for the file system",
    errno.ENOENT: "a folder of the path does not exist and can't be made",
    errno.EIO: "the disk reported an error",
}


@contextmanager
def write_atomically(path: Path, *, replace: bool = True) -> Iterator[Path]:
    """Yield a temporary path beside `path`, with its suffix; rename it to `path` if all goes well.

    Without `replace`, a file that is there by then stays as it is. Missing parent folders are made.
    What is not a regular file (`/dev/stdout`, a pipe) is yielded itself: it can't be renamed over.
    On any error nothing is left behind.

    Raises `OutputError` when the place can't be written to.
    """
    target = Path(os.path.realpath(path))
    staged = _sibling(target)
    with _output_errors(path, (target, staged)):
        if target.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(target))
        if target.exists() and not target.is_file():
            yield target
            return
        with _parents(target.parent):
            try:
                yield staged
                if replace or not target.exists():
                    os.replace(staged, target)
            finally:
                staged.unlink(missing_ok=True)


def write_text_atomically(path: Path, text: str) -> None:
    """Write `text` to `path` as UTF-8, whole or not at all. Raises `OutputError`."""
    with write_atomically(path) as staged:
        staged.write_text(text, encoding="utf-8")


@contextmanager
def atomic_directory(path: Path, *, replace: bool = False) -> Iterator[Path]:
    """Yield an empty temporary directory beside `path`; rename it to `path` if all goes well.

    With `replace`, an existing directory gives way to the new one, whole; without it, only an
    empty one does. On any error, an interrupt included, `path` is as it was.

    Raises `OutputError` when the place can't be written to, or is taken.
    """
    target = Path(os.path.realpath(path))
    staged, retired = _sibling(target), _sibling(target)
    with _output_errors(path, (target, staged)):
        if target.exists() and not target.is_dir():
            raise OutputError(f"can't write to {path}: expected a folder or nothing, got a file")
        if not replace and target.is_dir() and any(target.iterdir()):
            raise OutputError(
                f"can't write to {path}: expected an empty or new folder, got one with files in "
                "it; choose another place or empty it"
            )
        with _parents(target.parent):
            try:
                staged.mkdir()
                yield staged
                if target.is_dir():
                    os.rename(target, retired)
                try:
                    os.rename(staged, target)
                except BaseException:
                    if retired.is_dir():
                        os.rename(retired, target)
                    raise
            finally:
                shutil.rmtree(staged, ignore_errors=True)
                if target.is_dir():
                    shutil.rmtree(retired, ignore_errors=True)


def _sibling(target: Path) -> Path:
    """A hidden, unguessable name in the same folder (so that the rename stays in one file system),
    with the same suffix (linkers and savers go by it)."""
    return target.with_name(f".{target.stem[:100]}.{secrets.token_hex(6)}.tmp{target.suffix}")


@contextmanager
def _parents(folder: Path) -> Iterator[None]:
    """Make the missing parents; take those we made away again if the work fails."""
    missing = [f for f in (folder, *folder.parents) if not f.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    try:
        yield
    except BaseException:
        with suppress(OSError):  # not empty: someone else uses it by now
            for made in missing:
                made.rmdir()
        raise


@contextmanager
def _output_errors(path: Path, ours: tuple[Path, ...]) -> Iterator[None]:
    """Turn the system's refusals to write `ours` into `OutputError`; pass on the rest, among them
    errors of files read meanwhile. An error that names no file comes from writing an open one."""
    try:
        yield
    except OSError as error:
        named = error.filename
        elsewhere = isinstance(named, str | os.PathLike) and not _concerns(Path(named), ours)
        if error.errno not in _ADVICE or elsewhere:
            raise
        raise OutputError(f"can't write to {path}: {_ADVICE[error.errno]}") from error


def _concerns(named: Path, ours: tuple[Path, ...]) -> bool:
    """Whether a file named in an error is one of ours, below one, or a folder above one."""
    resolved = Path(os.path.realpath(named))
    return any(resolved.is_relative_to(p) or p.is_relative_to(resolved) for p in ours)
