"""A plain CPU schedule for everything that has no kernel of its own."""

from __future__ import annotations

from collections.abc import Callable

import tvm
from tvm import s_tir, tirx
from tvm.s_tir import Schedule

_SERIAL_ELEMENTS = 1 << 14
"""Below this many iterations a parallel launch (about 5 µs) costs more than it saves."""


@tvm.transform.module_pass(opt_level=0, name="ScheduleFallback")
class ScheduleFallback:
    """Run the outermost spatial loop of each remaining PrimFunc on all threads.

    Elementwise producers are inlined first. Loops known to be short stay serial: one token's norms
    and activations are cheaper than waking another thread. Functions marked `tirx.is_scheduled`
    are left alone, and every function is marked so afterwards.

    Precondition: after `FuseTIR`.
    """

    def transform_module(
        self, module: tvm.IRModule, _context: tvm.transform.PassContext
    ) -> tvm.IRModule:
        updated = {}
        for global_var, function in module.functions_items():
            if isinstance(function, tirx.PrimFunc) and not is_scheduled(function):
                updated[global_var] = _schedule(function)
        result = module.clone()
        for global_var, function in updated.items():
            result[global_var] = function
        return result


def is_scheduled(function: tirx.PrimFunc) -> bool:
    """Whether a function has its schedule already, and is to be left alone."""
    return function.attrs is not None and bool(function.attrs.get("tirx.is_scheduled", False))


def _schedule(function: tirx.PrimFunc) -> tirx.PrimFunc:
    schedule = Schedule(function)
    root = schedule.get_sblock("root")
    blocks = schedule.get_child_blocks(root)
    if not all(schedule.get(block).iter_vars for block in blocks):
        # Hand-written statements (TVM's sliding-window and tree attention): not ours to reorder.
        return function.with_attr("tirx.is_scheduled", True)
    for block in blocks[:-1]:
        _try(schedule.compute_inline, block)
    for block in schedule.get_child_blocks(root):
        _parallelize(schedule, block)
    return schedule.mod["main"].with_attr("tirx.is_scheduled", True)


def _try(step: Callable[..., object], *arguments: object) -> bool:
    """Run a schedule primitive; False where it doesn't apply to this block."""
    try:
        step(*arguments)
    except s_tir.ScheduleError:
        return False
    return True


def _parallelize(schedule: Schedule, block: s_tir.schedule.SBlockRV) -> None:
    loops = schedule.get_loops(block)
    elements = 1
    for loop in loops:
        extent = schedule.get(loop).extent
        if not isinstance(extent, tirx.IntImm):
            elements = _SERIAL_ELEMENTS  # dynamic: assume a whole prefill chunk
            break
        elements *= int(extent)
    if elements < _SERIAL_ELEMENTS:
        return
    for loop in loops:
        node = schedule.get(loop)
        if isinstance(node.extent, tirx.IntImm) and int(node.extent) == 1:
            continue
        _try(schedule.parallel, loop)
        return
