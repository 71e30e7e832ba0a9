"""Python packages: whether they are installed, of the tested version, and work."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, requires, version

from .document import Finding, Section, State
from .probe import Outcome

_OURS = "shadowattn-tvm"
_PIN = re.compile(r"^(?P<name>[\w.-]+)(\[[^]]*\])?==(?P<version>[^;\s]+)")

_TVM = """
import tvm
info = tvm.support.libinfo()
from tvm.target.codegen import llvm_version_major
on = [name for name in ("OPENCL", "HEXAGON", "CUDA", "VULKAN", "METAL")
      if info.get("USE_" + name) == "ON"]
print(f"LLVM {llvm_version_major()}, runtimes {', '.join(('CPU', 'RPC', *on))}")
"""
_RPC = "import tvm.rpc.tracker; from tvm.support.popen_pool import PopenWorker"


@dataclass(frozen=True)
class Package:
    """A package and what it is for.

    Attributes
    ----------
    distribution : its name on PyPI.
    code : what fails where the package doesn't work; what it prints is shown.
    enables, install, section, required : as in `Finding`.
    """

    distribution: str
    code: str
    enables: str
    install: str
    section: Section = "optional packages"
    required: bool = False

    def examine(self, run: Callable[[str], Outcome]) -> Finding:
        """The package as it is here. `run`: of `probe`."""

        def finding(state: State, found: str) -> Finding:
            return Finding(
                section=self.section,
                name=self.distribution,
                state=state,
                required=self.required,
                found=found,
                enables=self.enables,
                install=self.install,
            )

        try:
            installed = version(self.distribution)
        except PackageNotFoundError:
            return finding("missing", "not installed")
        outcome = run(self.code)
        if not outcome.works:
            return finding("broken", f"{installed}: {outcome.said}")
        tested = pinned_version(self.distribution)
        is_tested = tested in (None, installed.partition("+")[0])  # torch: 2.13.0+cpu
        versions = f"{installed} as tested" if tested and is_tested else installed
        found = ", ".join(filter(None, (versions, outcome.said)))
        if not is_tested:
            return finding("untested", f"{found}; tested with {tested}")
        return finding("ok", found)


def pinned_version(distribution: str) -> str | None:
    """The only version that our own package asks for; None where it takes several."""
    try:
        wanted = requires(_OURS) or []
    except PackageNotFoundError:
        return None
    pins = (_PIN.match(requirement) for requirement in wanted)
    return next((pin["version"] for pin in pins if pin and pin["name"] == distribution), None)


def _extra(name: str) -> str:
    return f"pip install '{_OURS}[{name}]'"


def _base(distribution: str, module: str, enables: str) -> Package:
    return Package(
        distribution, f"import {module}", enables, f"pip install {_OURS}", "compiler", required=True
    )


PACKAGES = (
    Package(
        "apache-tvm",
        _TVM,
        "compiling and running everything",
        f"pip install {_OURS}",
        "compiler",
        required=True,
    ),
    _base("apache-tvm-ffi", "tvm_ffi", "calling compiled functions"),
    _base("numpy", "numpy", "weights and tensors"),
    _base("tokenizers", "tokenizers", "text to tokens and back"),
    _base("gguf", "gguf", "weights in GGUF files"),
    _base("safetensors", "safetensors, ml_dtypes", "weights of Hugging Face directories"),
    Package("torch", "import torch", "calibrate; torch in bench", _extra("calibrate")),
    Package(
        "transformers",
        "import transformers",
        "torch in bench prefill, decode",
        _extra("calibrate"),
    ),
    Package("matplotlib", "import matplotlib.figure", "--plot everywhere", _extra("report")),
    Package(
        "llama-cpp-python",
        "import llama_cpp",
        "llama.cpp in bench prefill, decode",
        _extra("llama"),
    ),
    Package("tornado", _RPC, "tune, RPC trackers and servers on this machine", _extra("tune")),
)
"""In the order of the table."""
