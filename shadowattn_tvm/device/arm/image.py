"""The emulated machine's disk: Debian's Python for arm64 and the aarch64 wheels of TVM.

Made once and cached by content. Nothing is installed on this machine and nothing needs root:
packages are fetched with a package state of its own and unpacked into a folder. The image carries
TVM's runtime without the compiler, as a phone does.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from ...config.atomic import atomic_directory
from ...config.paths import cache_dir
from ...config.programs import require_tools, run_tool
from ...errors import DeviceError
from .tools import EMULATOR, ENABLE

PYTHON = "python3.11"
"""The guest's, in Debian 12 (bookworm)."""

_DEBIAN_PACKAGES = (f"{PYTHON}-minimal", f"lib{PYTHON}-stdlib", "libstdc++6", "libgcc-s1")

_WHEELS = ("numpy", "ml_dtypes", "typing_extensions", "cloudpickle", "tornado", "psutil")
"""What TVM imports, and its RPC server."""

_PLATFORMS = (
    *(f"manylinux_2_{minor}_aarch64" for minor in (34, 28, 27, 24, 17)),
    "manylinux2014_aarch64",
)

_UNWANTED = (
    "site/tvm/lib/libtvm_compiler.so",
    "site/tvm/lib/libtvm_runtime_cuda.so",
    "site/tvm/include",
    "site/tvm/3rdparty",
    "site/numpy/tests",
    "root/usr/share/doc",
    "root/usr/share/man",
    "root/usr/share/locale",
    "root/usr/share/zoneinfo",
)

_FETCH_TIMEOUT_S = 900.0
_TOOL_TIMEOUT_S = 120.0


def image_path() -> Path:
    """Where the image of this recipe and this TVM lives, made or not."""
    recipe = [
        *(_DEBIAN_PACKAGES, _WHEELS, _PLATFORMS, _UNWANTED),
        *(version(name) for name in ("apache-tvm", "apache-tvm-ffi")),
    ]
    key = hashlib.sha256(json.dumps(recipe).encode()).hexdigest()
    return cache_dir() / "devices" / f"arm-{key[:16]}"


def make_image(on_step: Callable[[str], None] = lambda step: None) -> Path:
    """The image, made if it isn't there: about 150 MB on disk after 85 MB of downloads.
    `on_step` is called as each step begins.

    Raises `DeviceError` if a tool is missing or a package can't be had, `OutputError` if the cache
    can't be written to. Whatever interrupts it, no half an image is left.
    """
    image = image_path()
    if image.is_dir():
        return image
    require_tools(
        "making an image of an ARM machine", "apt-get", "dpkg-deb", EMULATOR, enable=ENABLE
    )
    with atomic_directory(image, replace=True) as staged:
        on_step("fetch Debian's Python for arm64")
        _unpack_debian(staged)
        on_step("fetch the aarch64 wheels of TVM")
        _unpack_wheels(staged)
        for name in _UNWANTED:
            path = staged / name
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        on_step("start it once")  # does it work at all; and bytecode is written for later starts
        run_tool(
            [*guest_python(staged), "-c", "import tvm, tvm.rpc.server, psutil"],
            _TOOL_TIMEOUT_S,
            environment=guest_environment(staged, threads=1),
        )
    return image


def guest_python(image: Path, cpu: str = "max", *options: str) -> list[str]:
    """The command that runs the guest's Python; `options` are QEMU's."""
    python = image / "root/usr/bin" / PYTHON
    return [EMULATOR, "-cpu", cpu, "-L", str(image / "root"), *options, str(python)]


def guest_environment(image: Path, threads: int) -> dict[str, str]:
    """All of the guest's environment; `threads` of TVM's pool."""
    kept = ("PATH", "HOME", "TMPDIR", "LANG")
    return {
        **{name: os.environ[name] for name in kept if name in os.environ},
        "PYTHONHOME": str(image / "root/usr"),
        "PYTHONPATH": str(image / "site"),
        "TVM_USE_RUNTIME_LIB": "1",  # there is no compiler in the image
        "TVM_NUM_THREADS": str(threads),
    }


def _unpack_debian(image: Path) -> None:
    """`image/root`: a package state of its own, for another architecture, in `image/apt`."""
    state, root = image / "apt", image / "root"
    for folder in (
        root,
        *(state / name for name in ("state/lists/partial", "cache/archives/partial")),
    ):
        folder.mkdir(parents=True)
    (state / "status").touch()
    settings = {
        "APT::Architecture": "arm64",
        "APT::Architectures::": "arm64",
        "APT::Install-Recommends": "0",
        "Dir::State": str(state / "state"),
        "Dir::State::status": str(state / "status"),
        "Dir::Cache": str(state / "cache"),
        "Debug::NoLocking": "1",
        # the unprivileged user that root's apt-get downloads as can't write here
        "APT::Sandbox::User": "root",
    }
    apt = [
        "apt-get",
        "-qq",
        *(part for item in settings.items() for part in ("-o", "=".join(item))),
    ]
    run_tool([*apt, "update"], _FETCH_TIMEOUT_S)
    try:
        run_tool([*apt, "-y", "--download-only", "install", *_DEBIAN_PACKAGES], _FETCH_TIMEOUT_S)
    except DeviceError as error:
        raise DeviceError(
            f"{error}; expected a package source with {PYTHON} for arm64, as Debian 12's"
        ) from None
    for package in sorted((state / "cache/archives").glob("*.deb")):
        run_tool(["dpkg-deb", "-x", str(package), str(root)], _TOOL_TIMEOUT_S)
    shutil.rmtree(state)


def _unpack_wheels(image: Path) -> None:
    """`image/site`: the versions of TVM that run here, and what they import."""
    downloads, site = image / "wheels", image / "site"
    pinned = (f"{name}=={version(name)}" for name in ("apache-tvm", "apache-tvm-ffi"))
    run_tool(
        [
            *(sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check"),
            *("--no-deps", "--only-binary=:all:", "--dest", str(downloads)),
            *(part for platform in _PLATFORMS for part in ("--platform", platform)),
            *("--python-version", PYTHON.removeprefix("python"), "--implementation", "cp"),
            *("--abi", "cp311", "--abi", "abi3", "--abi", "none"),
            *(*pinned, *_WHEELS),
        ],
        _FETCH_TIMEOUT_S,
    )
    for wheel in sorted(downloads.glob("*.whl")):
        shutil.unpack_archive(wheel, site, "zip")
    shutil.rmtree(downloads)
