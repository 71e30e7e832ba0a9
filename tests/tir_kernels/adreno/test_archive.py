"""What a phone's build links: an archive with the kernels' OpenCL and their aarch64 host code."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import tvm
from tvm.support import tar

from shadowattn_tvm.compiler.targets import resolve_device
from tests.archives import members, require_aarch64, require_opencl
from tir_kernels.adreno import slots
from tir_kernels.build import build_opencl_kernels

from ..dense_harness import SMOLLM2
from ..shadow.test_prefill import SHARING, shadow_spec

REGISTERS = b"TVMFFIEnvModRegisterSystemLibSymbol"
"""What the code of a system library calls when the program starts."""


@pytest.mark.parametrize("prefix", [None, "", "some_model_"])
def test_an_archive_needs_no_ndk(prefix: str | None, tmp_path: Path) -> None:
    half = replace(SMOLLM2, dtype="float16")
    kernels = slots(half, shadow_spec(half, SHARING["group-block-32"]))
    target = resolve_device("android:adreno").target
    built = build_opencl_kernels(kernels, target, system_lib_prefix=prefix)
    path = tmp_path / "adreno.tar"
    tvm.runtime.Executable(built).export_library(str(path), fcompile=tar.tar)
    objects = members(path)
    require_aarch64(objects)
    contents = b"".join(objects)
    require_opencl(contents, kernels.items(), prefix or "")
    assert (REGISTERS in contents) == (prefix is not None)
