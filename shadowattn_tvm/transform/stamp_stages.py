"""Note when the stages of a pipeline begin and end; compiled in on demand, and free otherwise.

Before `PipelineHeads` or anything else that takes annotated loops apart::

    stamps = T.alloc_buffer((n, STAMP_COLUMNS), "int64")
    for item in T.parallel(n, annotations={"shadowattn.pipeline": 1}):
        ...
        with T.attr({"shadowattn.stage": "pilot"}):
            stamps[item, ITEMS_COLUMN] = n
            stamps[item, 0] = cycles; A(item); stamps[item, 1] = cycles
        with T.attr({"shadowattn.stage": "attend"}): ...                            # likewise
    ...  # append the stamps to the file that the environment names, if it names one

A file needs nothing of the process it is written in: it works in the stock engine and on a phone.
"""

from __future__ import annotations

import tvm
from tvm import tirx
from tvm.tirx.stmt_functor import ir_transform

from tir_kernels.shadow.list_stages import ATTEND, PILOT, PIPELINE, STAGE

TRACE_VARIABLE = "SHADOWATTN_TRACE"
"""Names the file."""

STAMP_COLUMNS = 8
"""int64 of an item, cycles but for one: a cache line."""

ITEMS_COLUMN = 4
"""How many items the launch has, so that a file of several launches can be read."""

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
        count = tirx.BufferStore(
            stamps,
            tirx.Cast("int64", num_items),
            [loop.loop_var, tirx.IntImm("int32", ITEMS_COLUMN)],
        )
        counted = [count] if stage.value.value == PILOT else []
        body = tirx.SeqStmt([*counted, note(begin), stage.body, note(begin + 1)])
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
            _append(stamps, num_items),
        ]
    )


def _append(stamps: tirx.Var, num_items: tirx.Var) -> tirx.Stmt:
    """Append all rows to the file that `TRACE_VARIABLE` names, by the C library."""
    path, file = tirx.Var("path", "handle"), tirx.Var("file", "handle")
    row_bytes = tirx.IntImm("int64", STAMP_COLUMNS * 8)
    write = tirx.SeqStmt(
        [
            tirx.Evaluate(
                tirx.call_extern(
                    "int64", "fwrite", stamps.data, row_bytes, tirx.Cast("int64", num_items), file
                )
            ),
            tirx.Evaluate(tirx.call_extern("int32", "fclose", file)),
        ]
    )
    opened = tirx.SeqStmt(
        [
            tirx.Bind(file, tirx.call_extern("handle", "fopen", path, tirx.StringImm("ab"))),
            tirx.IfThenElse(tirx.Not(tirx.isnullptr(file)), write, None),
        ]
    )
    return tirx.SeqStmt(
        [
            tirx.Bind(path, tirx.call_extern("handle", "getenv", tirx.StringImm(TRACE_VARIABLE))),
            tirx.IfThenElse(tirx.Not(tirx.isnullptr(path)), opened, None),
        ]
    )
