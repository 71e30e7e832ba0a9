"""Archives for an Android app, made without the NDK: whose code and whose kernels are in them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from shadowattn_tvm.compiler.kernel_parameters import shadow_spec
from shadowattn_tvm.config.chat_config import model_dtype
from shadowattn_tvm.errors import CompileError
from shadowattn_tvm.mlc import run
from shadowattn_tvm.mlc.report import read_report
from shadowattn_tvm.plan import Plan, save_plan
from shadowattn_tvm.runtime.library_file import read_metadata, require_library
from shadowattn_tvm.transform.attach_adreno_attention import adreno_kernels
from shadowattn_tvm.weights import ModelDirectory, open_model_directory
from tests.archives import EM_AARCH64, machines, members, require_aarch64, require_opencl
from tests.mlc.conftest import LIMITS, MlcModel
from tests.plan.tiny_plan import make_plan, shared_lists

pytestmark = [
    pytest.mark.mlc,
    pytest.mark.parametrize("mlc_model", ["llama"], indirect=True),
]

ARM64_CPU = '{"kind":"llvm","mtriple":"aarch64-linux-android","mcpu":"cortex-a76"}'
SLOTS = ["ragged_prefill", "paged_prefill", "decode", "merge_states"]


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


@dataclass(frozen=True)
class Adreno:
    """A library for an Adreno GPU: its file, the objects in it, and the model and plan of it."""

    archive: Path
    objects: list[bytes]
    directory: ModelDirectory
    plan: Plan


@pytest.fixture(scope="module", params=["q4f16_1", "q4f32_1"])
def adreno(
    request: pytest.FixtureRequest, mlc_model: MlcModel, tmp_path_factory: pytest.TempPathFactory
) -> Adreno:
    """Compiled with a plan that shares lists, from weights in each quantization."""
    quantization = request.param
    folder = tmp_path_factory.mktemp(f"adreno-{quantization}")
    converted, plan_file, archive = folder / "mlc", folder / "plan.json", folder / "library.tar"
    common = (str(mlc_model.hugging_face), "--quantization", quantization, "-o", str(converted))
    limits = ("--prefill-chunk-size", "16", "--context-window-size", "256")
    run(["convert_weight", *common, "--device", "cpu"])
    run(["gen_config", *common, "--conv-template", "LM", *limits])
    directory = open_model_directory(converted)
    plan = shared_lists(make_plan(directory))
    save_plan(plan, plan_file)
    options = ["--device", "android:adreno", "--shadow-attn", str(plan_file)]
    report = f"--shadow-attn-report={folder / 'report.json'}"
    run(["compile", str(converted), "-o", str(archive), "--overrides", LIMITS, *options, report])
    return Adreno(archive, members(archive), directory, plan)


def test_adreno_runs_the_kernels_that_are_tested(adreno: Adreno) -> None:
    """In the storage of the model; and MLC's kernels for the same slots are gone."""
    require_aarch64(adreno.objects)
    contents = b"".join(adreno.objects)
    quantization = adreno.directory.quantization
    spec = shadow_spec(adreno.plan, adreno.directory.architecture, model_dtype(quantization))
    kernels = adreno_kernels(spec.attention, spec).values()
    require_opencl(contents, kernels, f"llama_{quantization}_")
    for stock in ("prefill_ragged_kv", "prefill_paged_kv", "decode_paged_kv"):
        assert f"batch_{stock}_kernel(".encode() not in contents
    assert b"NT_matmul" in contents  # the layers between are MLC's


def test_adreno_keeps_the_metadata(adreno: Adreno) -> None:
    require_library(adreno.archive, adreno.plan)
    metadata = read_metadata(adreno.archive)
    assert metadata.quantization == adreno.directory.quantization
    names = {parameter.name for parameter in metadata.params}
    assert names == set(adreno.directory.tensor_cache.tensors())
    report = read_report(adreno.archive.with_name("report.json"))
    assert [kernel.slot for kernel in report.swapped] == SLOTS
    assert set(report.added) == {kernel.after for kernel in report.swapped}


def test_adreno_without_a_plan(mlc_model: MlcModel, tmp_path: Path) -> None:
    """Our dense kernels, as on a CPU."""
    archive = tmp_path / "library.tar"
    compile_for_android(mlc_model, archive, "--device", "android:adreno", "--shadow-attn", "off")
    objects = members(archive)
    require_aarch64(objects)
    contents = b"".join(objects)
    assert b"shadowattn_dense_paged_prefill_kernel(" in contents
    assert b"shadowattn_paged_prefill" not in contents
    assert b"batch_prefill_paged_kv_kernel(" not in contents
    require_library(archive, None)


def test_adreno_has_no_sparse_decode(mlc_model: MlcModel, tmp_path: Path) -> None:
    archive, plan_file = tmp_path / "library.tar", tmp_path / "plan.json"
    save_plan(mlc_model.plan.model_copy(update={"decode": "sparse"}), plan_file)
    plan = ["--shadow-attn", str(plan_file)]
    with pytest.raises(CompileError, match="switch decode to dense in the plan"):
        compile_for_android(mlc_model, archive, "--device", "android:adreno", *plan)
    assert not archive.exists()
