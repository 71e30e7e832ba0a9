"""OpenCL platforms, devices behind RPC, and mlc_llm: what others bring to this machine."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import CompileError, ShadowAttnError
from .document import Finding, State
from .packages import Package
from .probe import Outcome

if TYPE_CHECKING:  # loads TVM, which may be what is broken
    from ..device.rpc import RpcAddress

_PLATFORMS = """
import pyopencl
try:
    found = pyopencl.get_platforms()
except pyopencl.LogicError:
    found = []
print("; ".join(f"{each.name}: {', '.join(d.name for d in each.get_devices())}" for each in found))
"""

_POCL, _OCLGRIND = "portable computing language", "oclgrind"

_OPENCL = "make opencl-device"

_MLC_LLM = """
from shadowattn_tvm.mlc.installation import import_mlc_llm, require_known_layout
package = import_mlc_llm()
require_known_layout("compile")
print(getattr(package, "__version__", ""), "at", *package.__path__)
"""


def opencl(run: Callable[[str], Outcome]) -> Iterator[Finding]:
    """pyopencl, and what it finds."""
    package = Package(
        "pyopencl", _PLATFORMS, "running Adreno's kernels on any OpenCL device", _OPENCL, "devices"
    ).examine(run)
    yield package
    platforms = package.found.lower() if package.state in ("ok", "untested") else ""

    def platform(name: str, word: str, enables: str) -> Finding:
        there = word in platforms
        return Finding(
            section="devices",
            name=name,
            state="ok" if there else "missing",
            required=False,
            found="among pyopencl's platforms" if there else "no such OpenCL platform",
            enables=enables,
            install=_OPENCL,
        )

    yield platform("PoCL", _POCL, "pytest -m opencl: Adreno's kernels on this CPU")
    yield platform("Oclgrind", _OCLGRIND, "the search for data races in Adreno's kernels")


def rpc_device(address: RpcAddress) -> Finding:
    """The device that the user named; for a tracker, one that has the key."""
    from ..compiler import resolve_target
    from ..device.arm_features import arm_features
    from ..device.remote import RemoteKernels
    from ..device.rpc import connect

    kernels = RemoteKernels(lambda: connect(address), shares_files=False)
    state: State
    try:
        threads = kernels.call("runtime.NumThreads")
        state, found = "ok", f"{address}: {threads} threads"
        with tempfile.TemporaryDirectory(prefix="shadowattn-doctor-") as folder:
            has = arm_features(kernels, resolve_target("arm64"), Path(folder))
        found += f", 64-bit ARM with {', '.join(has) or 'none of our extensions'}"
    except CompileError as error:  # no linker: the device is fine
        found += f"; nothing asked of its CPU: {error}"
    except ShadowAttnError as error:
        state, found = "missing", str(error)
    except Exception as error:  # a server of another version may fail in any way
        state, found = "broken", f"{address}: {type(error).__name__}: {error}".splitlines()[0]
    finally:
        kernels.close()
    return Finding(
        section="devices",
        name="RPC device",
        state=state,
        required=True,
        found=found,
        enables="chat, bench, tune and calibrate --stage-costs on it",
        install="python -m tvm.exec.rpc_server --host 0.0.0.0, on the device",
    )


def mlc_llm(run: Callable[[str], Outcome]) -> Finding:
    """The package, or a checkout of its source; whether our hooks fit it."""
    from ..mlc import SOURCE_VARIABLE, TESTED, is_installed

    state: State = "missing"
    found = f"neither installed nor named in {SOURCE_VARIABLE}"
    if is_installed():
        outcome = run(_MLC_LLM)
        state, found = ("ok" if outcome.works else "broken"), outcome.said
    return Finding(
        section="MLC-LLM",
        name="mlc_llm",
        state=state,
        required=False,
        found=f"{found}; tested: {TESTED}",
        enables="shadowattn mlc_llm compile, chat, serve, package",
        # its vendor's package index, by platform: no one command
        install="see https://llm.mlc.ai/docs/install/mlc_llm.html",
    )
