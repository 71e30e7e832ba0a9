"""Whole models for an Adreno GPU: what is in the archive. `device/opencl` runs one."""

from __future__ import annotations

from pathlib import Path

import pytest

from shadowattn_tvm.compiler import compile_library
from shadowattn_tvm.compiler.kernel_parameters import attention_spec, shadow_spec
from shadowattn_tvm.compiler.targets import resolve_device, resolve_target
from shadowattn_tvm.config.chat_config import Quantization, model_dtype
from shadowattn_tvm.errors import CompileError, ConfigError
from shadowattn_tvm.runtime.library_file import read_metadata, require_library
from shadowattn_tvm.transform.attach_adreno_attention import adreno_kernels
from shadowattn_tvm.weights import ModelDirectory
from tests.archives import members, require_aarch64, require_opencl
from tests.calibrate.tiny_model import stored_parameters, tiny_config, write_tiny_model
from tests.plan.tiny_plan import make_plan, shared_lists


@pytest.mark.slow
@pytest.mark.parametrize(("quantization", "planned"), [("q4f16_1", True), ("q4f32_1", False)])
def test_an_archive_holds_the_whole_model(
    quantization: Quantization, planned: bool, tmp_path: Path
) -> None:
    config = tiny_config()
    (tmp_path / "model").mkdir()
    directory = write_tiny_model(
        tmp_path / "model",
        config,
        parameters=stored_parameters(config, quantization),
        quantization=quantization,
    )
    plan = shared_lists(make_plan(directory)) if planned else None
    library = compile_library(
        directory, plan, device="android:adreno", output=tmp_path / "library.tar"
    )
    objects = members(library.path)
    require_aarch64(objects)
    contents = b"".join(objects)
    dtype = model_dtype(quantization)
    shadow = None if plan is None else shadow_spec(plan, config, dtype)
    require_opencl(contents, adreno_kernels(attention_spec(config, dtype), shadow).values())
    assert (b"shadowattn_paged_prefill_kernel" in contents) == planned
    # TVM's kernels for the same slots are gone, those for the layers between are there
    assert b"batch_prefill_ragged_kv_kernel" not in contents
    assert b"merge_state_kernel" not in contents
    assert b"NT_matmul" in contents
    assert b"fused_dequantize_take" in contents
    assert b"\0dequantize_kernel" not in contents  # nothing writes whole weights out
    require_library(library.path, plan)
    metadata = read_metadata(library.path)
    assert metadata.quantization == quantization
    assert {p.name for p in metadata.params} == set(directory.tensor_cache.tensors())


def test_mlcs_spelling_and_the_files() -> None:
    device = resolve_device("android:adreno")
    assert str(device.target) == str(resolve_device("android-adreno").target)
    assert device.is_gpu
    assert device.triple == "aarch64-linux-android"
    with pytest.raises(ConfigError, match="android:adreno is a GPU"):
        resolve_target("android:adreno")


def test_a_shared_library_takes_the_ndk(
    tiny_directory: ModelDirectory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TVM_NDK_CC", raising=False)
    output = tmp_path / "library.so"
    with pytest.raises(CompileError, match=r"expected TVM_NDK_CC.*-o library\.tar"):
        compile_library(tiny_directory, None, device="android:adreno", output=output)
    assert not output.exists()


def test_sparse_decode_is_refused(tiny_directory: ModelDirectory, tmp_path: Path) -> None:
    plan = make_plan(tiny_directory).model_copy(update={"decode": "sparse"})
    output = tmp_path / "library.tar"
    with pytest.raises(CompileError, match="switch decode to dense in the plan"):
        compile_library(tiny_directory, plan, device="android:adreno", output=output)
    assert not output.exists()
