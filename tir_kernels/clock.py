"""The CPU's counter, which stamps are taken from: of cycles on x86, and on ARM the generic timer
(CNTVCT_EL0), since the counter of cycles is the system's own there."""

from __future__ import annotations

from tvm import tirx
from tvm.script import tirx as T


def read_clock() -> tirx.PrimFunc:
    """Variables: `now` (1,) int64, the counter."""

    @T.prim_func(s_tir=True)
    def shadowattn_read_clock(var_now: T.handle) -> None:
        T.func_attr({"tirx.is_scheduled": True})
        now = T.match_buffer(var_now, (1,), "int64")
        now[0] = T.call_llvm_intrin("int64", "llvm.readcyclecounter")

    return shadowattn_read_clock
