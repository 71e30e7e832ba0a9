"""What a kernel can ask and tell the process it runs in, by the C library; for devices."""

from __future__ import annotations

from tvm import tirx
from tvm.script import tirx as T

AT_HWCAP, AT_HWCAP2 = 16, 26
"""Linux' keys of the two words of CPU features, in the auxiliary vector of every process."""


def set_variable(name: str, value: str) -> tirx.PrimFunc:
    """No variables: sets an environment variable of the process."""

    @T.prim_func(s_tir=True)
    def shadowattn_set_variable() -> None:
        T.func_attr({"tirx.is_scheduled": True})
        T.evaluate(T.call_extern("int32", "setenv", name, value, 1))

    return shadowattn_set_variable


def read_hardware_capabilities() -> tirx.PrimFunc:
    """Variables: `words` (2,) int64, what Linux says of the CPU's features."""

    @T.prim_func(s_tir=True)
    def shadowattn_read_hardware_capabilities(var_words: T.handle) -> None:
        T.func_attr({"tirx.is_scheduled": True})
        words = T.match_buffer(var_words, (2,), "int64")
        words[0] = T.call_extern("int64", "getauxval", T.int64(AT_HWCAP))
        words[1] = T.call_extern("int64", "getauxval", T.int64(AT_HWCAP2))

    return shadowattn_read_hardware_capabilities
