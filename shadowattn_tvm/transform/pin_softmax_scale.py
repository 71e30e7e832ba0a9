"""Make the softmax scale a constant of the kernels we leave as they are."""

from __future__ import annotations

import tvm
from tvm import tirx
from tvm.tirx.stmt_functor import substitute

_PARAMETER = "sm_scale"
"""TVM's attention kernels call it so, all of them."""


@tvm.transform.module_pass(opt_level=0, name="PinSoftmaxScale")
class PinSoftmaxScale:
    """Replace the parameter `sm_scale` in the bodies of all PrimFuncs that have it by its value.

    Once the model's calls carry layer ids (see `layer_ids`), the run-time argument is no scale any
    more; TVM's sliding-window and tree attention (for speculative decoding), which we don't swap,
    would compute nonsense with it.

    Precondition: before `AttachShadowAttention`, whose kernels read the layer from that argument.
    """

    def __init__(self, sm_scale: float) -> None:
        self.sm_scale = sm_scale

    def transform_module(
        self, module: tvm.IRModule, _context: tvm.transform.PassContext
    ) -> tvm.IRModule:
        result = module.clone()
        for global_var, function in module.functions_items():
            if isinstance(function, tirx.PrimFunc):
                pinned = {
                    parameter: tirx.const(self.sm_scale, parameter.ty.dtype)
                    for parameter in function.params
                    if parameter.name == _PARAMETER
                }
                if pinned:
                    result.update_func(
                        global_var, function.with_body(substitute(function.body, pinned))
                    )
        return result
