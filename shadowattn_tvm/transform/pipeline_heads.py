"""One launch for the whole pipeline: a task for the NPU's stage, the others for the CPU's.

Before, a loop over items (lists of one or several heads, in planned order) whose body has stages::

    for item in T.parallel(n, annotations={"shadowattn.pipeline": 1}):
        ...                                     # what both stages need to know
        with T.attr({"shadowattn.stage": "pilot"}): A(item)
        with T.attr({"shadowattn.stage": "attend"}): B(item)

After, with C workers::

    ready = T.alloc_buffer((n * FLAG_STRIDE,), "int32")  # all 0
    for task in T.parallel(1 + C):
        if task == 0:
            for item in range(n): A(item); release; ready[item] = 1
        else:
            for item in range(task - 1, n, C): wait for ready[item]; acquire; B(item)

What A leaves for B lies in buffers from outside the loop, at places of its own for every item: with
one thread the tasks run one after the other. What A does is the kernel's business: it computes what
the NPU would, or has the process's NPU do it for several items at once (`shadow.npu_pilot`), the
first of which waits for all. So is what B does: it may enqueue kernels of a GPU, which is a third
machine then (`three_machines`).

Source: "Dynamic Sparse Attention on Mobile SoCs", the head-wise pipeline.
"""

from __future__ import annotations

import tvm
from tvm import tirx
from tvm.arith import Analyzer
from tvm.tirx.stmt_functor import ir_transform, substitute

from tir_kernels.features import CpuFeatures
from tir_kernels.shadow.list_stages import ATTEND, PILOT, PIPELINE, STAGE
from tir_kernels.simd.handoff import FLAG_STRIDE, Handoff, handoff
from tir_kernels.spec import ShadowSpec

from ..errors import CompileError


@tvm.transform.module_pass(opt_level=0, name="PipelineHeads")
class PipelineHeads:
    """Take every annotated loop of every PrimFunc apart; other functions stay as they are.

    Preconditions: `require_pipelinable`; the body of an annotated loop is bindings, one pilot
    stage, then one attend stage.
    """

    def __init__(self, workers: int, features: CpuFeatures) -> None:
        self.workers = workers
        self.features = features

    def transform_module(
        self, module: tvm.IRModule, _context: tvm.transform.PassContext
    ) -> tvm.IRModule:
        fences = handoff(self.features.isa)
        assert fences is not None, "checked by require_pipelinable"
        changed = tvm.IRModule({})
        for global_var, function in module.functions_items():
            if isinstance(function, tirx.PrimFunc):
                body = ir_transform(
                    function.body,
                    None,
                    lambda loop: _pipelined(loop, self.workers, fences),
                    ["tirx.For"],
                )
                if not body.same_as(function.body):
                    changed[global_var.name_hint] = function.with_body(body)
        # the statements that both stages need now have two homes
        changed = tirx.transform.ConvertSSA()(changed)
        result = module.clone()
        for global_var, function in changed.functions_items():
            result.update_func(result.get_global_var(global_var.name_hint), function)
        return result


def require_pipelinable(spec: ShadowSpec, workers: int, features: CpuFeatures) -> None:
    """Raise `CompileError` for a plan without shared lists, less than one CPU worker, or a CPU
    whose fences aren't known. To be called before the pipeline runs: TVM turns what is raised
    inside a pass into a RuntimeError."""
    if not spec.pilot.pooled:
        raise CompileError(
            "the plan selects for each query and head, which leaves the NPU nothing to hand over; "
            "a pipeline needs shared lists: `shadowattn calibrate --query-block 16`, or compile "
            "for a device without a pipeline"
        )
    if workers < 1:
        raise CompileError(f"a pipeline needs at least one CPU worker, got {workers}")
    if handoff(features.isa) is None:
        raise CompileError(
            f"pipelines need an x86-64 CPU with AVX2 or an aarch64 CPU, got {features.isa!r}; "
            f"compile for a device without a pipeline"
        )


def _pipelined(loop: tirx.For, workers: int, fences: Handoff) -> tirx.Stmt | None:
    """The statements that replace an annotated loop; None leaves a loop alone."""
    if PIPELINE not in loop.annotations:
        return None
    common, stages = take_apart(loop)
    num_items, task = tirx.Var("num_items", "int32"), tirx.Var("task", "int32")
    ready = tirx.decl_buffer((num_items * FLAG_STRIDE,), "int32", "ready", layout=None)
    npu = _npu_task(loop, [*common, stages[PILOT]], num_items, ready, fences)
    cpu = _cpu_task(loop, [*common, stages[ATTEND]], num_items, ready, fences, task, workers)
    lower = tirx.Var("item", "int32")
    return tirx.SeqStmt(
        [
            tirx.Bind(num_items, loop.extent),
            tirx.AllocBuffer(ready),
            _serial(lower, num_items, tirx.BufferStore(ready, _int(0), [lower * FLAG_STRIDE])),
            tirx.For(
                task,
                _int(0),
                _int(1 + workers),
                tirx.ForKind.PARALLEL,
                tirx.IfThenElse(task == 0, npu, cpu),
            ),
        ]
    )


def _npu_task(
    loop: tirx.For,
    body: list[tirx.Stmt],
    num_items: tirx.Var,
    ready: tirx.Var,
    fences: Handoff,
) -> tirx.Stmt:
    """Every item's pilot in turn, and a flag raised after each."""
    raise_flag = [
        tirx.Evaluate(fences.release()),
        tirx.BufferStore(ready, _int(1), [loop.loop_var * FLAG_STRIDE]),
    ]
    return _serial(loop.loop_var, num_items, tirx.SeqStmt([*body, *raise_flag]))


def _cpu_task(
    loop: tirx.For,
    body: list[tirx.Stmt],
    num_items: tirx.Var,
    ready: tirx.Var,
    fences: Handoff,
    task: tirx.Var,
    workers: int,
) -> tirx.Stmt:
    """The items of worker `task` - 1, each `workers` after the one before, once they are ready."""
    turn, item = tirx.Var("turn", "int32"), tirx.Var("item", "int32")
    is_waiting = tirx.BufferLoad(ready, [item * FLAG_STRIDE]) == 0
    steps = [
        tirx.Bind(item, task - 1 + turn * workers),
        tirx.While(is_waiting, tirx.Evaluate(fences.pause())),
        tirx.Evaluate(fences.acquire()),
        *(substitute(statement, {loop.loop_var: item}) for statement in body),
    ]
    turns = Analyzer().simplify((num_items - task) // workers + 1)
    return _serial(turn, turns, tirx.SeqStmt(steps))


def take_apart(loop: tirx.For) -> tuple[list[tirx.Stmt], dict[str, tirx.Stmt]]:
    """What precedes the stages, and the stages by name."""
    common: list[tirx.Stmt] = []
    stages: dict[str, tirx.Stmt] = {}
    for statement in loop.body.seq:
        if isinstance(statement, tirx.AttrStmt) and statement.attr_key == STAGE:
            stages[statement.value.value] = statement.body
        else:
            assert isinstance(statement, tirx.Bind), "only bindings precede the stages"
            assert not stages, "nothing follows the stages"
            common.append(statement)
    assert list(stages) == [PILOT, ATTEND], f"expected two stages, got {list(stages)}"
    return common, stages


def _serial(variable: tirx.Var, extent: tirx.Expr, body: tirx.Stmt) -> tirx.For:
    return tirx.For(variable, _int(0), extent, tirx.ForKind.SERIAL, body)


def _int(value: int) -> tirx.IntImm:
    return tirx.IntImm("int32", value)
