"""Dequantize 4-bit weights inside the product or the table look-up that reads them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tvm
from tvm import relax
from tvm.relax.dpl.pattern import GlobalVarPattern, TuplePattern, is_op, wildcard

_DEQUANTIZE = ("dequantize", "fused_dequantize")
_PRODUCT = ("NT_matmul", "fused_NT_matmul")
_LOOK_UP = ("take", "fused_take")

_MAX_OTHER_OPERANDS = 2
"""What a product's epilogue reads besides: a bias, a residual."""


@tvm.transform.module_pass(opt_level=0, name="FuseDequantize")
class FuseDequantize:
    """Fuse `call_tir(dequantize, (words, scales))` into the `call_tir` of a product (with its
    epilogue) or of a table's rows by index; without that, weights would be written out as floats.

    Kernels are known by the names that TVM's passes give them, as in MLC-LLM.

    Precondition: after `FuseTIR`.
    """

    def transform_module(
        self, module: tvm.IRModule, _context: tvm.transform.PassContext
    ) -> tvm.IRModule:
        patterns = [
            ("dequantize_take", *_pattern(lambda weight: [weight, wildcard()], _LOOK_UP)),
            *(
                ("dequantize_matmul", *_pattern(_product_operands(count), _PRODUCT))
                for count in range(_MAX_OTHER_OPERANDS, -1, -1)
            ),
        ]
        fuse = [relax.transform.FuseOpsByPattern([pattern]) for pattern in patterns]
        return tvm.transform.Sequential([*fuse, relax.transform.FuseTIR()])(module)


def _product_operands(num_others: int) -> Callable[[Any], list[Any]]:
    """x, the weight, and what an epilogue reads."""
    return lambda weight: [wildcard(), weight, *(wildcard() for _ in range(num_others))]


def _pattern(
    operands_of: Callable[[Any], list[Any]], readers: tuple[str, ...]
) -> tuple[Any, dict[str, Any], Callable[[Any], bool]]:
    """As `FuseOpsByPattern` takes it: the kernel that reads a weight, and who makes the weight."""
    weight = is_op("relax.call_tir")(
        GlobalVarPattern(), TuplePattern([wildcard(), wildcard()]), add_constraint=False
    )
    reader = is_op("relax.call_tir")(
        GlobalVarPattern(), TuplePattern(operands_of(weight)), add_constraint=False
    )

    def check(context: Any) -> bool:
        return _calls(context.annotated_expr["weight"], _DEQUANTIZE) and _calls(
            context.annotated_expr["reader"], readers
        )

    return reader, {"weight": weight, "reader": reader}, check


def _calls(expression: Any, names: tuple[str, ...]) -> bool:
    """Whether `expression` calls a PrimFunc whose name begins with one of `names`."""
    return isinstance(expression, relax.Call) and str(expression.args[0].name_hint).startswith(
        names
    )
