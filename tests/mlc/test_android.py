"""Archives for an Android app, made without the NDK: whose code and whose kernels are in them."""

from __future__ import annotations

import struct
import tarfile
from pathlib import Path

import pytest

from shadowattn_tvm.errors import CompileError
from shadowattn_tvm.mlc import run
from shadowattn_tvm.runtime.library_file import require_library
from tests.mlc.conftest import LIMITS, MlcModel

pytestmark = [
    pytest.mark.mlc,
    pytest.mark.parametrize("mlc_model", ["llama"], indirect=True),
]

ARM64_CPU = '{"kind":"llvm","mtriple":"aarch64-linux-android","mcpu":"cortex-a76"}'
EM_AARCH64 = 183


def members(archive: Path) -> list[bytes]:
    with tarfile.open(archive) as tar:
        return [file.read() for file in map(tar.extractfile, tar) if file is not None]


def machines(objects: list[bytes]) -> set[int]:
    """`e_machine` of every ELF object."""
    return {
        struct.unpack_from("<H", content, 18)[0]
        for content in objects
        if content.startswith(b"\x7fELF")
    }


def compile_for_android(model: MlcModel, output: Path, *arguments: str) -> None:
    description = str(model.directory.path)
    run(["compile", description, "-o", str(output), "--overrides", LIMITS, *arguments])


def test_the_phones_cpu(mlc_model: MlcModel, tmp_path: Path) -> None:
    archive = tmp_path / "library.tar"
    plan = ["--shadow-attn", str(mlc_model.plan_file)]
    compile_for_android(mlc_model, archive, "--device", ARM64_CPU, *plan)
    objects = members(archive)
    assert machines(objects) == {EM_AARCH64}
    contents = b"".join(objects)
    assert b"shadowattn_paged_prefill\0" in contents
    assert b"batch_prefill_paged_kv_cpu\0" not in contents
    require_library(archive, mlc_model.plan)


def test_adreno_without_a_plan(mlc_model: MlcModel, tmp_path: Path) -> None:
    """MLC's own kernels for OpenCL: `off` changes nothing there."""
    archive = tmp_path / "library.tar"
    compile_for_android(mlc_model, archive, "--device", "android:adreno", "--shadow-attn", "off")
    objects = members(archive)
    assert machines(objects) == {EM_AARCH64}
    contents = b"".join(objects)
    assert b"__kernel void" in contents
    assert b"shadowattn_" not in contents
    require_library(archive, None)


def test_adreno_with_a_plan_waits_for_its_kernels(mlc_model: MlcModel, tmp_path: Path) -> None:
    archive = tmp_path / "library.tar"
    plan = ["--shadow-attn", str(mlc_model.plan_file)]
    with pytest.raises(CompileError, match="no shadowAttn kernels for OpenCL yet"):
        compile_for_android(mlc_model, archive, "--device", "android:adreno", *plan)
    assert not archive.exists()
