"""Put our linear kernels where the model multiplies by a (possibly quantized) weight."""

from __future__ import annotations

from dataclasses import replace

import tvm
from tvm import relax, tirx
from tvm.ir import Op
from tvm.relax.expr_functor import PyExprMutator, mutator

from tir_kernels.constants import QUANT_PER_WORD
from tir_kernels.features import CpuFeatures
from tir_kernels.linear.matmul import embedding, linear, linear_decode
from tir_kernels.spec import LinearSpec

from ..config.chat_config import Quantization

_DEQUANTIZE = "dequantize"

_PLAIN: dict[str, Quantization] = {"float32": "q0f32", "float16": "q0f16"}
"""By the dtype of a weight."""

_QUANTIZED: dict[str, Quantization] = {"float32": "q4f32_1", "float16": "q4f16_1"}
"""By the dtype of 4-bit weights' scales."""


@tvm.transform.module_pass(opt_level=0, name="DispatchLinear")
class DispatchLinear:
    """Rewrite `matmul(x, permute_dims(w))` and `take(dequantize(w), ids)` to call our kernels.

    `w` is a (N, K) tensor, float32 or float16, or `call_tir(dequantize*, (q_weight, q_scale))` as
    MLC spells q4f32_1 and q4f16_1; `x` is (..., K) of the same dtype, and the product of that dtype
    or float32. One row known at compile time gets the GEMV kernel, anything
    else the kernel that chooses at run time. Products of other shapes or dtypes stay as they are.

    Precondition: before `LegalizeOps` and `FuseOps`.
    """

    def __init__(self, features: CpuFeatures) -> None:
        self.features = features

    def transform_module(
        self, module: tvm.IRModule, _context: tvm.transform.PassContext
    ) -> tvm.IRModule:
        rewriter = _Rewriter(module, self.features)
        for global_var, function in module.functions_items():
            if isinstance(function, relax.Function):
                rewriter.builder_.update_func(global_var, rewriter.visit_expr(function))
        return relax.transform.DeadCodeElimination()(rewriter.builder_.get())


@mutator
class _Rewriter(PyExprMutator):
    def __init__(self, module: tvm.IRModule, features: CpuFeatures) -> None:
        super().__init__(module)
        self.features = features
        self.matmul = Op.get("relax.matmul")
        self.permute_dims = Op.get("relax.permute_dims")
        self.take = Op.get("relax.take")
        self.call_tir = Op.get("relax.call_tir")
        self.kernels: dict[tuple[str, LinearSpec], tvm.ir.GlobalVar] = {}

    def visit_call_(self, call: relax.Call) -> relax.Expr:
        call = super().visit_call_(call)
        if call.op == self.matmul:
            return self._rewrite_matmul(call)
        if call.op == self.take:
            return self._rewrite_take(call)
        return call

    def _rewrite_matmul(self, call: relax.Call) -> relax.Expr:
        x, transposed = call.args
        weight = self._transposed_weight(transposed)
        if weight is None:
            return call
        operands = self._dequantize_operands(weight)
        spec = _quantized_spec(operands) if operands else _plain_spec(weight)
        if spec is None or x.ty.dtype.dtype != spec.dtype:
            return call
        output_dtype = str(call.ty.dtype.dtype)
        if output_dtype != spec.dtype:
            spec = replace(spec, float32_output=True)
        if output_dtype != spec.output_dtype:
            return call
        leading = list(x.ty.shape.values)[:-1]
        rows = _product(leading)
        one_row = isinstance(rows, tirx.IntImm | int) and int(rows) == 1
        kernel = self._kernel("linear_decode" if one_row else "linear", spec)
        flat = self.builder_.emit(relax.op.reshape(x, (rows, spec.in_features)))
        product = self.builder_.emit(
            relax.call_tir(
                kernel,
                [flat, *(operands or [weight])],
                out_ty=relax.TensorType((rows, spec.out_features), spec.output_dtype),
            )
        )
        return relax.op.reshape(product, (*leading, spec.out_features))

    def _rewrite_take(self, call: relax.Call) -> relax.Expr:
        table, ids = call.args
        operands = self._dequantize_operands(table)
        if operands is None or int(call.attrs.axis) != 0 or len(ids.ty.shape) != 1:
            return call
        spec = _quantized_spec(operands)
        if spec is None or call.ty.dtype.dtype != spec.dtype:
            return call
        return relax.call_tir(self._kernel("embedding", spec), [ids, *operands], out_ty=call.ty)

    def _transposed_weight(self, expr: relax.Expr) -> relax.Expr | None:
        """`w` if `expr` is bound to `permute_dims(w)` of a matrix."""
        bound = self.lookup_binding(expr) if isinstance(expr, relax.Var) else None
        if not isinstance(bound, relax.Call) or bound.op != self.permute_dims:
            return None
        (weight,) = bound.args
        static = weight.ty.ndim == 2 and all(
            isinstance(extent, tirx.IntImm) for extent in weight.ty.shape.values
        )
        return weight if static else None

    def _dequantize_operands(self, weight: relax.Expr) -> list[relax.Expr] | None:
        """`[q_weight, q_scale]` if `weight` is bound to a call of a `dequantize` PrimFunc."""
        bound = self.lookup_binding(weight) if isinstance(weight, relax.Var) else None
        if not isinstance(bound, relax.Call) or bound.op != self.call_tir:
            return None
        if not bound.args[0].name_hint.startswith(_DEQUANTIZE):
            return None
        operands = list(bound.args[1].fields)
        return operands if len(operands) == 2 else None

    def _kernel(self, kind: str, spec: LinearSpec) -> tvm.ir.GlobalVar:
        if (kind, spec) not in self.kernels:
            factory = {"linear": linear, "linear_decode": linear_decode, "embedding": embedding}
            name = f"{kind}_{spec.quantization}_{spec.out_features}x{spec.in_features}"
            if spec.float32_output:
                name += "_to_float32"
            kernel = factory[kind](spec, self.features).with_attr(
                {"global_symbol": name, "tirx.is_scheduled": True}
            )
            self.kernels[kind, spec] = self.builder_.add_func(kernel, name)
        return self.kernels[kind, spec]


def _plain_spec(weight: relax.Expr) -> LinearSpec | None:
    quantization = _PLAIN.get(str(weight.ty.dtype.dtype))
    rows, columns = (int(extent) for extent in weight.ty.shape.values)
    return LinearSpec(rows, columns, quantization) if quantization else None


def _quantized_spec(operands: list[relax.Expr]) -> LinearSpec | None:
    words, scales = operands
    quantization = _QUANTIZED.get(str(scales.ty.dtype.dtype))
    if quantization is None or words.ty.dtype.dtype != "uint32":
        return None
    rows, columns = (int(extent) for extent in words.ty.shape.values)
    return LinearSpec(rows, columns * QUANT_PER_WORD, quantization)


def _product(extents: list[tirx.Expr]) -> tirx.Expr:
    total: tirx.Expr = tirx.IntImm("int64", 1)
    for extent in extents:
        total = total * extent
    return tvm.arith.Analyzer().simplify(total)
