"""Upper bounds of the dynamic shapes, for static memory planning."""

from __future__ import annotations

from collections.abc import Mapping

import tvm
from tvm import relax


@tvm.transform.module_pass(opt_level=0, name="AttachBounds")
class AttachBounds:
    """Annotate every Relax function with the largest value of each named shape variable."""

    def __init__(self, upper_bounds: Mapping[str, int]) -> None:
        self.upper_bounds = upper_bounds

    def transform_module(
        self, module: tvm.IRModule, _context: tvm.transform.PassContext
    ) -> tvm.IRModule:
        result = module.clone()
        for global_var, function in module.functions_items():
            if isinstance(function, relax.Function):
                result[global_var] = (
                    function.with_attr("tir_var_upper_bound", dict(self.upper_bounds))
                    .with_attr("tir_non_negative_var", ["vocab_size"])
                    .with_attr("relax.memory_plan_dynamic_func_output", True)
                )
        return result
