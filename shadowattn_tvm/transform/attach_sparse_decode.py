"""Give the KV cache an INT8 shadow of K, and decode by it."""

from __future__ import annotations

from collections.abc import Mapping

import tvm
from tvm import relax, tirx
from tvm.relax.expr_functor import PyExprMutator, mutator

from tir_kernels.decode.page_upkeep import compact_pages, copy_page, read_pages
from tir_kernels.decode.shadow_append import shadow_append
from tir_kernels.decode.sparse_paged_decode import sparse_paged_decode
from tir_kernels.decode.widen_qkv import widen_qkv
from tir_kernels.features import CpuFeatures
from tir_kernels.spec import ShadowSpec

from .kv_cache_slots import (
    ATTENTION_BUILTIN,
    Slot,
    attention_calls,
    replace_slots,
    set_stored_heads,
)

KERNEL_NAMES = {
    Slot.APPEND: "shadowattn_shadow_append",
    Slot.DECODE: "shadowattn_sparse_paged_decode",
    Slot.COPY_PAGE: "shadowattn_copy_page",
    Slot.READ_PAGES: "shadowattn_read_pages",
    Slot.COMPACT_PAGES: "shadowattn_compact_pages",
}
"""Symbols in the library."""

WIDEN_NAME = "shadowattn_widen_qkv"


@tvm.transform.module_pass(opt_level=0, name="AttachSparseDecode")
class AttachSparseDecode:
    """Add shadow rows to the pages, and swap the kernels that write, move and decode by them.

    Every attention call's projection becomes as wide as the cache now expects it, and carries its
    layer to the append kernel, which the runtime tells nothing else.

    Preconditions: after `AttachDenseAttention` and `AttachShadowAttention`, both with the geometry
    of `spec`, which has shadow rows: their kernels take pages as they will be.
    """

    def __init__(self, spec: ShadowSpec, features: CpuFeatures) -> None:
        self.spec = spec
        self.features = features

    def transform_module(
        self, module: tvm.IRModule, _context: tvm.transform.PassContext
    ) -> tvm.IRModule:
        geometry = self.spec.attention
        module = set_stored_heads(module, geometry.stored_heads)
        module = replace_slots(
            module, {slot: (KERNEL_NAMES[slot], kernel) for slot, kernel in self._kernels().items()}
        )
        return _widen_projections(module, self.spec, widen_qkv(geometry, self.features))

    def _kernels(self) -> Mapping[Slot, tirx.PrimFunc]:
        spec, features = self.spec, self.features
        geometry = spec.attention
        return {
            Slot.APPEND: shadow_append(spec, features),
            Slot.DECODE: sparse_paged_decode(spec, features),
            Slot.COPY_PAGE: copy_page(geometry, features),
            Slot.READ_PAGES: read_pages(geometry, features, spec.num_layers),
            Slot.COMPACT_PAGES: compact_pages(geometry, features),
        }


def _widen_projections(
    module: tvm.IRModule, spec: ShadowSpec, kernel: tirx.PrimFunc
) -> tvm.IRModule:
    builder = relax.BlockBuilder(module)
    widen = builder.add_func(kernel.with_attr("global_symbol", WIDEN_NAME), WIDEN_NAME)
    module = builder.get()
    widener = _Widener(module, spec, widen)
    for global_var, function in module.functions_items():
        if isinstance(function, relax.Function) and attention_calls(function):
            widener.builder_.update_func(global_var, widener.visit_expr(function))
    return widener.builder_.get()


@mutator
class _Widener(PyExprMutator):
    """attention(cache, layer, scale, qkv) -> attention(cache, layer, scale, widen(qkv, layer))."""

    def __init__(self, module: tvm.IRModule, spec: ShadowSpec, widen: tvm.ir.GlobalVar) -> None:
        super().__init__(module)
        self.geometry = spec.attention
        self.widen = widen

    def visit_call_(self, call: relax.Call) -> relax.Expr:
        call = super().visit_call_(call)
        packed = call.args[0] if call.args else None
        if not isinstance(packed, relax.ExternFunc):
            return call
        if str(packed.global_symbol) != ATTENTION_BUILTIN:
            return call
        cache, layer_id, sm_scale, qkv = call.args[1].fields
        tokens = qkv.ty.shape[0]
        heads = self.geometry.num_q_heads + 2 * self.geometry.stored_heads
        wide = self.builder_.emit(
            relax.call_tir(
                self.widen,
                [qkv, layer_id],
                out_ty=relax.TensorType((tokens, heads, self.geometry.head_dim), qkv.ty.dtype),
            )
        )
        arguments = [packed, relax.Tuple([cache, layer_id, sm_scale, wide])]
        return relax.Call(call.op, arguments, call.attrs, call.ty_args)
