"""What a phone's build links: an archive with the kernels' OpenCL and their aarch64 host code."""

from __future__ import annotations

import tarfile
from dataclasses import replace
from pathlib import Path

import tvm
from tvm.support import tar

from shadowattn_tvm.device.opencl.program import ADRENO
from tir_kernels.adreno import slots
from tir_kernels.build import pass_context

from ..dense_harness import SMOLLM2
from ..shadow.test_prefill import SHARING, shadow_spec

AARCH64 = 183
"""e_machine of an ELF file."""


def test_an_archive_needs_no_ndk(tmp_path: Path) -> None:
    half = replace(SMOLLM2, dtype="float16")
    kernels = slots(half, shadow_spec(half, SHARING["group-block-32"]))
    module = tvm.IRModule({name: f.with_attr("global_symbol", name) for name, f in kernels.items()})
    with pass_context():
        built = tvm.tirx.build(module, target=tvm.target.Target(ADRENO), pipeline="default")
    path = tmp_path / "adreno.tar"
    tvm.runtime.Executable(built).export_library(str(path), fcompile=tar.tar)
    with tarfile.open(path) as archive:
        members = [archive.extractfile(member) for member in archive.getmembers()]
        objects = [member.read() for member in members if member is not None]
    assert all(int.from_bytes(data[18:20], "little") == AARCH64 for data in objects)
    sources = [data for data in objects if b"__kernel void" in data]
    assert len(sources) == 1
    for name in kernels:
        assert f"{name}_kernel(".encode() in sources[0]
