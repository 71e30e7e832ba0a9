"""Put shadowAttn into the paged-prefill slot, and tell it which layer it works for."""

from __future__ import annotations

import tvm
from tvm import relax

from tir_kernels.features import CpuFeatures
from tir_kernels.shadow.prefill import shadow_paged_prefill
from tir_kernels.spec import ShadowSpec

from ..errors import CompileError
from .kv_cache_slots import AttentionCall, Slot, attention_calls, replace_slots
from .layer_ids import send_layer_ids

KERNEL_NAME = "shadowattn_paged_prefill"
"""Symbol in the library."""


@tvm.transform.module_pass(opt_level=0, name="AttachShadowAttention")
class AttachShadowAttention:
    """Swap the paged-prefill slot for shadowAttn and pass each call's layer id to it.

    The kernel takes the layer from the integer part of `sm_scale` (see `layer_ids`) and has the
    scale as a constant. With `npu` it asks the process for its pilot; `PipelineHeads` must follow.

    Preconditions: after `AttachDenseAttention` (no remaining kernel reads `sm_scale`), and
    `require_attachable`.
    """

    def __init__(self, spec: ShadowSpec, features: CpuFeatures, *, npu: bool = False) -> None:
        self.spec = spec
        self.features = features
        self.npu = npu

    def transform_module(
        self, module: tvm.IRModule, _context: tvm.transform.PassContext
    ) -> tvm.IRModule:
        kernel = shadow_paged_prefill(
            self.spec, self.features, npu=self.npu, alternate=not self.npu
        )
        module = replace_slots(
            module,
            {Slot.PAGED_PREFILL: (KERNEL_NAME, kernel.with_attr("tirx.is_scheduled", True))},
        )
        require_attachable(module, self.spec)
        return send_layer_ids(module)


def require_attachable(module: tvm.IRModule, spec: ShadowSpec) -> None:
    """Raise `CompileError` unless `spec` fits every attention call of the model. To be called
    before the pipeline runs: TVM turns what is raised inside a pass into a RuntimeError."""
    num_calls = 0
    for global_var, function in module.functions_items():
        calls = attention_calls(function) if isinstance(function, relax.Function) else ()
        if calls:
            _require_fit(global_var.name_hint, calls, spec)
            num_calls += len(calls)
    if num_calls == 0:
        raise CompileError("no function of the model attends through the paged KV cache")


def _require_fit(name: str, calls: tuple[AttentionCall, ...], spec: ShadowSpec) -> None:
    layers = [call.layer_id for call in calls]
    if layers != list(range(spec.num_layers)):
        raise CompileError(
            f"{name}: the plan has {spec.num_layers} layers, the model attends in layers "
            f"{layers}; make a plan for this model with `shadowattn calibrate`"
        )
    scales = {call.sm_scale for call in calls}
    if scales != {spec.attention.sm_scale}:
        raise CompileError(
            f"{name}: expected the softmax scale {spec.attention.sm_scale} in every layer, got "
            f"{sorted(scales)}"
        )
