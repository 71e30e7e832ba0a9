"""Put shadowAttn into the paged-prefill slot, and tell it which layer it works for."""

from __future__ import annotations

import tvm
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

from tir_kernels.features import CpuFeatures
from tir_kernels.shadow_prefill import shadow_paged_prefill
from tir_kernels.spec import ShadowSpec

from ..errors import CompileError
from .kv_cache_slots import ATTENTION_BUILTIN, AttentionCall, Slot, attention_calls, replace_slots

KERNEL_NAME = "shadowattn_paged_prefill"
"""Symbol in the library."""


@tvm.transform.module_pass(opt_level=0, name="AttachShadowAttention")
class AttachShadowAttention:
    """Swap the paged-prefill slot for shadowAttn and pass each call's layer id to it.

    The runtime gives attention kernels neither layer nor head, but it hands `sm_scale` through
    untouched. The pass therefore rewrites every attention call of the model to
    `layer_id + sm_scale`; the kernel takes the layer from the integer part and has the scale as a
    constant.

    Preconditions: after `AttachDenseAttention` (no remaining kernel reads `sm_scale`), and
    `require_attachable`.
    """

    def __init__(self, spec: ShadowSpec, features: CpuFeatures) -> None:
        self.spec = spec
        self.features = features

    def transform_module(
        self, module: tvm.IRModule, _context: tvm.transform.PassContext
    ) -> tvm.IRModule:
        kernel = shadow_paged_prefill(self.spec, self.features)
        module = replace_slots(
            module,
            {Slot.PAGED_PREFILL: (KERNEL_NAME, kernel.with_attr("tirx.is_scheduled", True))},
        )
        require_attachable(module, self.spec)
        rewriter = _LayerIdRewriter(module)
        for global_var, function in module.functions_items():
            if isinstance(function, relax.Function) and attention_calls(function):
                rewriter.builder_.update_func(global_var, rewriter.visit_expr(function))
        return rewriter.builder_.get()


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


@mutator
class _LayerIdRewriter(PyExprMutator):
    """`sm_scale` -> `layer_id + sm_scale` in each attention call."""

    def visit_call_(self, call: relax.Call) -> relax.Expr:
        call = super().visit_call_(call)
        packed = call.args[0] if call.args else None
        if not isinstance(packed, relax.ExternFunc):
            return call
        if str(packed.global_symbol) != ATTENTION_BUILTIN:
            return call
        cache, layer_id, sm_scale, qkv = call.args[1].fields
        combined = relax.prim_value(float(int(layer_id.value) + float(sm_scale.value)))
        arguments = [packed, relax.Tuple([cache, layer_id, combined, qkv])]
        return relax.Call(call.op, arguments, call.attrs, call.ty_args)
