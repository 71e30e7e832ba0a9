"""Archives for an Android app, made without the NDK: whose code and whose kernels are in them."""

from __future__ import annotations

import io
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


def machines(archive: Path) -> set[int]:
    """`e_machine` of every ELF object in an archive."""
    found = set()
    with tarfile.open(archive) as tar:
        for member in tar:
            file = tar.extractfile(member)
            header = io.BytesIO(file.read(20) if file else b"")
            if header.read(4) == b"\x7fELF":
                found.add(struct.unpack_from("<H", header.getvalue(), 18)[0])
    return found


def compile_for_android(model: MlcModel, output: Path, *arguments: str) -> None:
    description = str(model.directory.path)
    run(["compile", description, "-o", str(output), "--overrides", LIMITS, *arguments])


def test_the_phones_cpu(mlc_model: MlcModel, tmp_path: Path) -> None:
    archive = tmp_path / "library.tar"
    target = ["--device", ARM64_CPU, "--host", "aarch64-linux-android"]
    compile_for_android(mlc_model, archive, *target, "--shadow-attn", str(mlc_model.plan_file))
    assert machines(archive) == {EM_AARCH64}
    contents = archive.read_bytes()
    assert b"shadowattn_paged_prefill\0" in contents
    assert b"batch_prefill_paged_kv_cpu\0" not in contents
    require_library(archive, mlc_model.plan)


def test_adreno_without_a_plan(mlc_model: MlcModel, tmp_path: Path) -> None:
    """MLC's own kernels for OpenCL: `off` changes nothing there."""
    archive = tmp_path / "library.tar"
    compile_for_android(mlc_model, archive, "--device", "android:adreno", "--shadow-attn", "off")
    assert machines(archive) == {EM_AARCH64}
    contents = archive.read_bytes()
    assert b"__kernel void" in contents
    assert b"shadowattn_" not in contents
    require_library(archive, None)


def test_adreno_with_a_plan_waits_for_its_kernels(mlc_model: MlcModel, tmp_path: Path) -> None:
    archive = tmp_path / "library.tar"
    plan = ["--shadow-attn", str(mlc_model.plan_file)]
    with pytest.raises(CompileError, match="no shadowAttn kernels for OpenCL yet"):
        compile_for_android(mlc_model, archive, "--device", "android:adreno", *plan)
    assert not archive.exists()
