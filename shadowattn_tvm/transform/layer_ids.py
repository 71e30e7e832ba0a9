"""Telling attention kernels which layer they work for.

The runtime gives attention kernels neither layer nor head, but it hands `sm_scale` through
untouched: the attention calls of the model are rewritten to pass `layer_id + sm_scale`. That fits
while 0 < sm_scale < 1; kernels take the layer from the integer part and have the scale as a
constant.
"""

from __future__ import annotations

import tvm
from tvm import relax
from tvm.relax.expr_functor import PyExprMutator, mutator

from .kv_cache_slots import ATTENTION_BUILTIN, attention_calls


def send_layer_ids(module: tvm.IRModule) -> tvm.IRModule:
    """`module` with every attention call's `sm_scale` replaced by `layer_id + sm_scale`.

    Precondition: no remaining kernel reads `sm_scale` as the scale.
    """
    rewriter = _LayerIdRewriter(module)
    for global_var, function in module.functions_items():
        if isinstance(function, relax.Function) and attention_calls(function):
            rewriter.builder_.update_func(global_var, rewriter.visit_expr(function))
    return rewriter.builder_.get()


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
