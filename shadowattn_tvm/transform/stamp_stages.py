"""Note when the stages of a pipeline begin and end; compiled in on demand, and free otherwise.

Before `PipelineHeads` or anything else that takes annotated loops apart::

    stamps = T.alloc_buffer((n, STAMP_COLUMNS), "int64")
    for item in T.parallel(n, annotations={"shadowattn.pipeline": 1}):
        ...
        with T.attr({"shadowattn.stage": "pilot"}):
            stamps[item, PILOT_BEGIN] = cycles; A(item); stamps[item, PILOT_END] = cycles
        with T.attr({"shadowattn.stage": "attend"}): ...                            # likewise
    T.call_packed("shadowattn.trace", stamps.data, n)
"""

from __future__ import annotations

import tvm
from tvm import tirx
from tvm.tirx.stmt_functor import ir_transform

from tir_kernels.shadow.list_stages import ATTEND, PILOT, PIPELINE, STAGE

TRACE_FUNCTION = "shadowattn.trace"
"""The packed function that gets a launch's stamps: their address, and the number of items."""

STAMP_COLUMNS = 8
"""int64 cycles of an item: a cache line, of which two are used by either stage."""

BEGIN_COLUMNS = {PILOT: 0, ATTEND: 2}
"""Where a stage's beginning is noted; its end is next to it."""


@tvm.transform.module_pass(opt_level=0, name="StampStages")
class StampStages:
    """Stamp the stages of every annotated loop; other functions stay as they are."""

    def transform_module(
        self, module: tvm.IRModule, _context: tvm.transform.PassContext
    ) -> tvm.IRModule:
        result = module.clone()
        for global_var, function in module.functions_items():
            if isinstance(function, tirx.PrimFunc):
                body = ir_transform(function.body, None, _stamped, ["tirx.For"])
                result.update_func(global_var, function.with_body(body))
        return result


def _stamped(loop: tirx.For) -> tirx.Stmt | None:
    if PIPELINE not in loop.annotations:
        return None
    num_items = tirx.Var("num_stamped", "int32")
    columns = tirx.IntImm("int32", STAMP_COLUMNS)
    stamps = tirx.decl_buffer((num_items, columns), "int64", "stamps", layout=None)

    def note(column: int) -> tirx.Stmt:
        cycles = tirx.call_llvm_intrin("int64", "llvm.readcyclecounter")
        return tirx.BufferStore(stamps, cycles, [loop.loop_var, tirx.IntImm("int32", column)])

    def around(stage: tirx.AttrStmt) -> tirx.Stmt | None:
        if stage.attr_key != STAGE:
            return None
        begin = BEGIN_COLUMNS[stage.value.value]
        body = tirx.SeqStmt([note(begin), stage.body, note(begin + 1)])
        return tirx.AttrStmt(stage.node, stage.attr_key, stage.value, body)

    body = ir_transform(loop.body, None, around, ["tirx.AttrStmt"])
    return tirx.SeqStmt(
        [
            tirx.Bind(num_items, loop.extent),
            tirx.AllocBuffer(stamps),
            tirx.For(
                loop.loop_var,
                loop.min,
                num_items,
                loop.kind,
                body,
                annotations=loop.annotations,
            ),
            tirx.Evaluate(tirx.call_packed(TRACE_FUNCTION, stamps.data, num_items)),
        ]
    )
