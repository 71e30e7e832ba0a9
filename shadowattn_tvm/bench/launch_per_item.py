"""The pipeline as a series of launches, one a step: what a single launch is held against.

Source: the form that the one-launch pipeline replaces; each launch ends with a barrier.
"""

from __future__ import annotations

import tvm
from tvm import tirx
from tvm.tirx.stmt_functor import ir_transform, substitute

from tir_kernels.shadow.list_stages import ATTEND, PILOT, PIPELINE

from ..transform.pipeline_heads import take_apart


@tvm.transform.module_pass(opt_level=0, name="LaunchPerItem")
class LaunchPerItem:
    """Rewrite every annotated loop: step i attends to item i - 1 while it estimates item i."""

    def transform_module(
        self, module: tvm.IRModule, _context: tvm.transform.PassContext
    ) -> tvm.IRModule:
        changed = {
            global_var.name_hint: function.with_body(
                ir_transform(function.body, None, _stepwise, ["tirx.For"])
            )
            for global_var, function in module.functions_items()
            if isinstance(function, tirx.PrimFunc)
        }
        return tirx.transform.ConvertSSA()(tvm.IRModule(changed))


def _stepwise(loop: tirx.For) -> tirx.Stmt | None:
    if PIPELINE not in loop.annotations:
        return None
    common, stages = take_apart(loop)
    step, task = tirx.Var("step", "int32"), tirx.Var("task", "int32")

    def stage(name: str, item: tirx.Expr) -> tirx.Stmt:
        body = tirx.SeqStmt([*common, stages[name]])
        return substitute(body, {loop.loop_var: item})

    launch = tirx.For(
        task,
        tirx.IntImm("int32", 0),
        tirx.IntImm("int32", 2),
        tirx.ForKind.PARALLEL,
        tirx.IfThenElse(
            task == 0,
            tirx.IfThenElse(step < loop.extent, stage(PILOT, step), None),
            tirx.IfThenElse(step > 0, stage(ATTEND, step - 1), None),
        ),
    )
    return tirx.For(step, tirx.IntImm("int32", 0), loop.extent + 1, tirx.ForKind.SERIAL, launch)
