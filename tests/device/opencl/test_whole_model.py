"""A whole model compiled for an Adreno GPU, every kernel of it run as OpenCL, on PoCL.

Float32 only: layers between the attention calculate with halfs in a float16 model, and PoCL has
none.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import tvm

from shadowattn_tvm.compiler import compile_library
from shadowattn_tvm.compiler.kernel_parameters import attention_spec, shadow_spec
from shadowattn_tvm.compiler.metadata import library_metadata
from shadowattn_tvm.compiler.targets import resolve_device
from shadowattn_tvm.config.chat_config import Quantization
from shadowattn_tvm.model import export_model
from shadowattn_tvm.plan import Plan
from shadowattn_tvm.runtime.session import Session
from shadowattn_tvm.transform import PipelineOptions, build_gpu_pipeline
from shadowattn_tvm.transform.attach_adreno_attention import adreno_kernels
from shadowattn_tvm.weights import ModelDirectory
from tests.calibrate.tiny_model import stored_parameters, tiny_config, write_tiny_model
from tests.device.opencl.hosted_library import hosted_library
from tests.plan.tiny_plan import make_plan, shared_lists
from tests.tir_kernels.adreno.conftest import POCL, open_queue
from tir_kernels.build import gpu_pass_context
from tir_kernels.features import GENERIC
from tir_kernels.spec import ShadowSpec

pytestmark = [pytest.mark.opencl, pytest.mark.slow]

TOKENS = tuple(int(t) for t in np.random.default_rng(3).integers(0, 256, 43))
"""Two chunks and a part of one, so that there is a past to thin out."""

DECODED = (5, 7)
TOLERANCE = 1e-4


def lowered(directory: ModelDirectory, plan: Plan, shadow: ShadowSpec) -> tvm.IRModule:
    """The model as `compile_library` hands it to TVM's code generator."""
    architecture = directory.architecture
    target = resolve_device("android:adreno").target
    exported = export_model(architecture, directory.quantization, target)
    options = PipelineOptions(
        target=target,
        features=GENERIC,
        attention=attention_spec(architecture),
        rope_theta=float(architecture.position_embedding_base),
        rope_scaling=None,
        shadow=shadow,
        hidden_size=architecture.hidden_size,
        prefill_chunk_size=architecture.prefill_chunk_size,
        context_window_size=architecture.context_window_size,
        max_batch_size=architecture.max_batch_size,
        metadata=library_metadata(directory, architecture, exported.parameters, plan, shadow),
        report=lambda phase: None,
    )
    with target, gpu_pass_context():
        module: tvm.IRModule = build_gpu_pipeline(options)(exported.module)
    return module


@pytest.mark.parametrize(("quantization", "shared"), [("q4f32_1", True), ("q0f32", False)])
def test_logits_are_those_of_this_machines_library(
    quantization: Quantization, shared: bool, tmp_path: Path, host_target: tvm.target.Target
) -> None:
    queue = open_queue(POCL)
    config = tiny_config()
    (tmp_path / "model").mkdir()
    directory = write_tiny_model(
        tmp_path / "model",
        config,
        parameters=stored_parameters(config, quantization),
        quantization=quantization,
    )
    plan = shared_lists(make_plan(directory)) if shared else make_plan(directory)
    shadow = shadow_spec(plan, config)
    attention = dict(adreno_kernels(attention_spec(config), shadow).values())
    module = lowered(directory, plan, shadow)
    library = tmp_path / "library.so"
    with hosted_library(module, attention, queue, host_target, library) as seen:
        session = Session(directory, library)
        got = [session.prefill(TOKENS), *(session.decode(token) for token in DECODED)]
    assert set(attention) <= seen
    assert any("NT_matmul" in name for name in seen)
    here = Session(directory, compile_library(directory, plan).path)
    want = [here.prefill(TOKENS), *(here.decode(token) for token in DECODED)]
    for on_device, on_cpu in zip(got, want, strict=True):
        np.testing.assert_allclose(on_device, on_cpu, rtol=TOLERANCE, atol=TOLERANCE)
